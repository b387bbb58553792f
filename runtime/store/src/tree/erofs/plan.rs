//! Where everything lies in the file system: decided before the first byte is written.
//!
//! Behind the superblock come all inodes, folder by folder, each with its attributes and the end of its data; behind
//! them the blocks of the few folders and links that have more.

use super::folder;
use super::inode::{self, Layout, Place};
use super::{BLOCK_BYTES, FIRST_INODE_AT, INODE_BYTES, MAX_TAIL_BYTES, SLOT_BYTES};
use crate::tree::{Body, NodeId, Tree};

/// Where one node's inode and data lie.
#[derive(Clone, Copy, Default)]
struct Spot {
    /// The folder above it (any of them).
    parent: NodeId,
    /// Number of its inode; 0: it has none yet.
    inode: u64,
    /// First of its blocks, counted from the first that isn't metadata.
    block: u32,
}

/// Where all lies.
pub struct Plan<'a> {
    tree: &'a Tree,
    /// The nodes in the order of their inodes.
    order: Vec<NodeId>,
    spots: Vec<Spot>,
    /// Blocks of superblock and inodes.
    meta_blocks: u32,
    /// Further blocks.
    data_blocks: u32,
}

/// A node's data: whole blocks, and the end that lies behind its inode.
pub struct Extent {
    pub size_bytes: u64,
    pub blocks: u32,
    pub tail_bytes: u64,
}

impl Extent {
    fn of(size_bytes: u64) -> Self {
        let tail_bytes = size_bytes % BLOCK_BYTES;
        let blocks = u32::try_from(size_bytes / BLOCK_BYTES).unwrap_or(u32::MAX);
        if tail_bytes > MAX_TAIL_BYTES {
            return Self { size_bytes, blocks: blocks.saturating_add(1), tail_bytes: 0 };
        }
        Self { size_bytes, blocks, tail_bytes }
    }
}

impl<'a> Plan<'a> {
    /// Decides where the nodes of a tree lie.
    pub fn new(tree: &'a Tree) -> Self {
        let spots = vec![Spot::default(); tree.count()];
        let mut plan = Self { tree, order: Vec::new(), spots, meta_blocks: 0, data_blocks: 0 };
        let mut end = FIRST_INODE_AT;
        plan.place(tree.root(), tree.root(), &mut end);
        let mut at = 0;
        // Each node is placed once, so this ends.
        while let Some(id) = plan.order.get(at).copied() {
            at += 1;
            let names = tree.node(id).and_then(|node| node.body.names());
            for child in names.into_iter().flat_map(|names| names.values()) {
                plan.place(*child, id, &mut end);
            }
        }
        plan.meta_blocks = u32::try_from(end.div_ceil(BLOCK_BYTES)).unwrap_or(u32::MAX);
        plan
    }

    fn place(&mut self, id: NodeId, parent: NodeId, end: &mut u64) {
        let Some(node) = self.tree.node(id) else { return };
        if self.spots.get(id as usize).is_none_or(|spot| spot.inode > 0) {
            return;
        }
        let extent = self.extent(id, parent);
        let is_chunk = matches!(node.body, Body::Object(..));
        let head = INODE_BYTES + inode::xattrs(node).len() as u64 + if is_chunk { 4 } else { 0 };
        let at = place_inode(*end, head, extent.tail_bytes);
        *end = (at + head + extent.tail_bytes).next_multiple_of(SLOT_BYTES);
        if let Some(spot) = self.spots.get_mut(id as usize) {
            *spot = Spot { parent, inode: at / SLOT_BYTES, block: self.data_blocks };
        }
        self.data_blocks = self.data_blocks.saturating_add(extent.blocks);
        self.order.push(id);
    }

    fn extent(&self, id: NodeId, parent: NodeId) -> Extent {
        match self.tree.node(id).map(|node| &node.body) {
            Some(body @ Body::Folder(_)) => Extent::of(folder::size_bytes(&folder::entries(id, parent, body))),
            Some(Body::Inline(_, length)) => Extent::of((*length).into()),
            Some(Body::Symlink(target)) => Extent::of(target.len() as u64),
            Some(Body::Object(_, size)) => Extent { size_bytes: *size, blocks: 0, tail_bytes: 0 },
            Some(Body::Special(..)) | None => Extent::of(0),
        }
    }

    /// The nodes in the order of their inodes.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// Number of a node's inode.
    pub fn inode(&self, id: NodeId) -> u64 {
        self.spots.get(id as usize).map_or(0, |spot| spot.inode)
    }

    /// The folder above a node.
    pub fn parent(&self, id: NodeId) -> NodeId {
        self.spots.get(id as usize).map_or(id, |spot| spot.parent)
    }

    /// Where a node's data is.
    pub fn data(&self, id: NodeId) -> (Extent, Place) {
        let extent = self.extent(id, self.parent(id));
        let node = self.tree.node(id);
        let layout = match node.map(|node| &node.body) {
            Some(Body::Object(..)) => Layout::Chunk,
            _ if extent.tail_bytes > 0 => Layout::Tail,
            _ => Layout::Blocks,
        };
        let links = match node.map(|node| &node.body) {
            Some(Body::Folder(names)) => {
                let is_folder = |id: &&NodeId| self.tree.node(**id).is_some_and(|node| node.body.names().is_some());
                2 + u32::try_from(names.values().filter(is_folder).count()).unwrap_or_default()
            }
            _ => node.map_or(1, |node| node.links),
        };
        let first = self.spots.get(id as usize).map_or(0, |spot| spot.block);
        let block = if extent.blocks > 0 { self.meta_blocks.saturating_add(first) } else { 0 };
        (
            Extent { ..extent },
            Place {
                layout,
                size_bytes: extent.size_bytes,
                block,
                links,
                number: u32::try_from(self.inode(id)).unwrap_or(u32::MAX),
            },
        )
    }

    /// Blocks of superblock and inodes.
    pub fn meta_blocks(&self) -> u32 {
        self.meta_blocks
    }

    /// All blocks.
    pub fn blocks(&self) -> u32 {
        self.meta_blocks.saturating_add(self.data_blocks)
    }
}

/// The first place from `end` on where an inode may lie: neither its first fields nor its tail cross a block.
fn place_inode(end: u64, head: u64, tail: u64) -> u64 {
    let mut at = end.next_multiple_of(SLOT_BYTES);
    // Two moves suffice: each ends behind the border that was in the way.
    for _ in 0..3 {
        let room = BLOCK_BYTES - at % BLOCK_BYTES;
        if room < INODE_BYTES {
            at += room;
        }
        let tail_at = at + head;
        let room = BLOCK_BYTES - tail_at % BLOCK_BYTES;
        if tail > room {
            at = (at + room).next_multiple_of(SLOT_BYTES);
        }
    }
    at
}
