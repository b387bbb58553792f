//! Names of a folder as blocks: in each block, records of all its names, then the names (`struct erofs_dirent`). Names
//! are sorted over all blocks, so that the kernel can search them.

use super::BLOCK_BYTES;
use crate::tree::{Body, Device, NodeId};

/// Length of a record.
const RECORD_BYTES: usize = 12;
/// Length of a block.
const BLOCK: usize = BLOCK_BYTES as usize;

/// A name in a folder.
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub node: NodeId,
}

/// All names of a folder, with `.` and `..`, in the order of their bytes.
pub fn entries(folder: NodeId, parent: NodeId, body: &Body) -> Vec<Entry<'_>> {
    let names = body.names().into_iter().flatten();
    let mut entries: Vec<_> = names.map(|(name, node)| Entry { name, node: *node }).collect();
    for (name, node) in [(&b"."[..], folder), (b"..", parent)] {
        let at = entries.partition_point(|entry| entry.name < name);
        entries.insert(at, Entry { name, node });
    }
    entries
}

/// How many of the next names fit into a block, and how many bytes they take there.
fn next_block(entries: &[Entry<'_>]) -> (usize, usize) {
    let mut bytes = 0;
    for (count, entry) in entries.iter().enumerate() {
        let more = bytes + RECORD_BYTES + entry.name.len();
        if more > BLOCK {
            return (count, bytes);
        }
        bytes = more;
    }
    (entries.len(), bytes)
}

/// Bytes of a folder's data: all blocks but the last are full.
pub fn size_bytes(mut entries: &[Entry<'_>]) -> u64 {
    let mut size = 0;
    while !entries.is_empty() {
        let (count, bytes) = next_block(entries);
        entries = entries.get(count..).unwrap_or_default();
        size += if entries.is_empty() { bytes } else { BLOCK };
    }
    size as u64
}

/// A folder's data. `describe` gives the inode number of a node and its type.
pub fn data(mut entries: &[Entry<'_>], describe: impl Fn(NodeId) -> (u64, u8)) -> Vec<u8> {
    let mut data = Vec::new();
    while !entries.is_empty() {
        // The block before is filled up with zeros, which end its last name.
        data.resize(data.len().next_multiple_of(BLOCK), 0);
        let (count, _) = next_block(entries);
        let (block, rest) = entries.split_at(count);
        let mut name_at = RECORD_BYTES * count;
        for entry in block {
            let (inode, kind) = describe(entry.node);
            data.extend(inode.to_le_bytes());
            data.extend(u16::try_from(name_at).unwrap_or_default().to_le_bytes());
            data.extend([kind, 0]);
            name_at += entry.name.len();
        }
        block.iter().for_each(|entry| data.extend(entry.name));
        entries = rest;
    }
    data
}

/// The type of a file as its folder tells it (linux/fs_types.h, `FT_…`).
pub fn kind(body: &Body) -> u8 {
    match body {
        Body::Inline(..) | Body::Object(..) => 1,
        Body::Folder(_) => 2,
        Body::Special(Device::Char, _) => 3,
        Body::Special(Device::Block, _) => 4,
        Body::Special(Device::Fifo, _) => 5,
        Body::Symlink(_) => 7,
    }
}
