//! All of a file system as a file.

use std::io::{self, Write};

use super::inode;
use super::plan::Plan;
use super::{BLOCK_BYTES, FIRST_INODE_AT, SLOT_BYTES, SUPERBLOCK_AT, folder};
use crate::tree::{Body, NodeId, Tree};

/// `EROFS_SUPER_MAGIC_V1`
const MAGIC: u32 = 0xe0f5_e1e2;
/// Times of files are those of their last modification (`EROFS_FEATURE_COMPAT_MTIME`).
const COMPAT_MTIME: u32 = 2;
/// Files may be made of chunks (`EROFS_FEATURE_INCOMPAT_CHUNKED_FILE`).
const INCOMPAT_CHUNKED: u32 = 4;

/// Writes a tree. `inline` reads the content of small files: so many bytes at an offset of the spool.
pub fn write(
    tree: &Tree,
    inline: &mut dyn FnMut(u64, u16) -> io::Result<Vec<u8>>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let plan = Plan::new(tree);
    let mut out = Counted { out, at: 0 };
    out.fill(SUPERBLOCK_AT)?;
    out.write(&superblock(&plan, tree.root()))?;
    for id in plan.order() {
        let Some(node) = tree.node(*id) else { continue };
        out.fill(plan.inode(*id) * SLOT_BYTES)?;
        let (extent, place) = plan.data(*id);
        out.write(&inode::bytes(node, &inode::xattrs(node), &place))?;
        if extent.tail_bytes > 0 {
            let data = data(tree, &plan, *id, inline)?;
            let tail = data.get(usize_of(extent.size_bytes - extent.tail_bytes)..).unwrap_or_default();
            out.write(tail)?;
        }
    }
    out.fill(u64::from(plan.meta_blocks()) * BLOCK_BYTES)?;
    for id in plan.order() {
        let (extent, _) = plan.data(*id);
        if extent.blocks > 0 {
            let data = data(tree, &plan, *id, inline)?;
            out.write(data.get(..usize_of(extent.size_bytes - extent.tail_bytes)).unwrap_or_default())?;
            out.fill(out.at.next_multiple_of(BLOCK_BYTES))?;
        }
    }
    Ok(())
}

/// What a node's extent holds.
fn data(
    tree: &Tree,
    plan: &Plan<'_>,
    id: NodeId,
    inline: &mut dyn FnMut(u64, u16) -> io::Result<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    match tree.node(id).map(|node| &node.body) {
        Some(body @ Body::Folder(_)) => {
            let entries = folder::entries(id, plan.parent(id), body);
            let kind = |id: NodeId| tree.node(id).map_or(0, |node| folder::kind(&node.body));
            Ok(folder::data(&entries, |id| (plan.inode(id), kind(id))))
        }
        Some(Body::Inline(offset, length)) => inline(*offset, *length),
        Some(Body::Symlink(target)) => Ok(target.to_vec()),
        _ => Ok(Vec::new()),
    }
}

/// `struct erofs_super_block`, without a checksum: fs-verity covers the file.
fn superblock(plan: &Plan<'_>, root: NodeId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(COMPAT_MTIME.to_le_bytes());
    // Logarithm of the block size, no further slots.
    bytes.extend([12, 0]);
    bytes.extend(u16::try_from(plan.inode(root)).unwrap_or_default().to_le_bytes());
    bytes.extend((plan.order().len() as u64).to_le_bytes());
    bytes.extend([0; 12]);
    bytes.extend(plan.blocks().to_le_bytes());
    bytes.resize(80, 0);
    bytes.extend(INCOMPAT_CHUNKED.to_le_bytes());
    bytes.resize(usize_of(FIRST_INODE_AT - SUPERBLOCK_AT), 0);
    bytes
}

fn usize_of(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

struct Counted<'a> {
    out: &'a mut dyn Write,
    at: u64,
}

impl Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Zeros up to an offset.
    fn fill(&mut self, to: u64) -> io::Result<()> {
        let zeros = [0; BLOCK_BYTES as usize];
        while self.at < to {
            let count = usize_of(to - self.at).min(zeros.len());
            self.write(zeros.get(..count).unwrap_or_default())?;
        }
        if self.at == to { Ok(()) } else { Err(io::Error::other("two parts of a file system overlap")) }
    }
}
