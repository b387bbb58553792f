//! One file's metadata as bytes: inode, extended attributes, and where its content is.

use super::{BLOCK_BYTES, INODE_BYTES};
use crate::digest::ObjectId;
use crate::tree::{Body, Device, Node};
use crate::verity::SHA256_NUMBER;

/// Types in a file's mode (inode(7)).
const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFREG: u16 = 0o100_000;
const S_IFLNK: u16 = 0o120_000;
/// Prefixes of attributes' names that have a number (`EROFS_XATTR_INDEX_…`).
const PREFIXES: [(&[u8], u8); 5] = [
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
];
/// Length of what stands before the attributes (`struct erofs_xattr_ibody_header`).
const XATTR_HEADER_BYTES: usize = 12;
/// A chunk that isn't there: its bytes come from elsewhere, or are zero.
const NO_BLOCK: u32 = u32::MAX;

/// How a file's data is laid out (`EROFS_INODE_…`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// In blocks of their own.
    Blocks = 0,
    /// Its end lies behind the inode.
    Tail = 2,
    /// In chunks; here always one that isn't there.
    Chunk = 4,
}

/// Where a file's data is, as its inode says it.
pub struct Place {
    /// How it is laid out.
    pub layout: Layout,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// The first of its blocks.
    pub block: u32,
    /// How many names the file has, as told by stat(2).
    pub links: u32,
    /// Its number, as 32-bit programs see it.
    pub number: u32,
}

/// The attributes of a file as they stand behind its inode, those for overlayfs included; empty if there is none.
pub fn xattrs(node: &Node) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Body::Object(object, _) = &node.body {
        push(&mut bytes, b"trusted.overlay.metacopy", &metacopy(object));
        push(&mut bytes, b"trusted.overlay.redirect", format!("/{}", object.hex()).as_bytes());
    }
    for (name, value) in &node.attributes.xattrs {
        push(&mut bytes, name, value);
    }
    if !bytes.is_empty() {
        bytes.splice(..0, [0; XATTR_HEADER_BYTES]);
    }
    bytes
}

/// `struct ovl_metacopy`: version, length, flags, algorithm, digest.
fn metacopy(object: &ObjectId) -> [u8; 36] {
    let mut value = [0; 36];
    let head = [0, 36, 0, SHA256_NUMBER];
    for (to, from) in value.iter_mut().zip(head.into_iter().chain(object.bytes())) {
        *to = from;
    }
    value
}

fn push(bytes: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let known = PREFIXES.iter().find_map(|(prefix, number)| Some((name.strip_prefix(*prefix)?, *number)));
    let (rest, number) = known.unwrap_or((name, 0));
    bytes.extend([u8::try_from(rest.len()).unwrap_or_default(), number]);
    bytes.extend(u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
    bytes.extend(rest);
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// An inode with its attributes, and the one entry of a chunk's table. What lies behind it, its tail, comes after.
pub fn bytes(node: &Node, xattrs: &[u8], place: &Place) -> Vec<u8> {
    let (kind, union) = match &node.body {
        Body::Folder(_) => (S_IFDIR, place.block),
        Body::Inline(..) => (S_IFREG, place.block),
        Body::Object(_, size) => (S_IFREG, chunk_format(*size)),
        Body::Symlink(_) => (S_IFLNK, place.block),
        Body::Special(Device::Char, device) => (S_IFCHR, *device),
        Body::Special(Device::Block, device) => (S_IFBLK, *device),
        Body::Special(Device::Fifo, _) => (S_IFIFO, 0),
    };
    let attributes = &node.attributes;
    let mut bytes = Vec::with_capacity(INODE_BYTES as usize + xattrs.len() + 4);
    // Bit 0: the long form of an inode.
    bytes.extend((1 | (place.layout as u16) << 1).to_le_bytes());
    let words = xattrs.len().saturating_sub(XATTR_HEADER_BYTES) / 4;
    let count = if xattrs.is_empty() { 0 } else { u16::try_from(words + 1).unwrap_or_default() };
    bytes.extend(count.to_le_bytes());
    bytes.extend((kind | attributes.mode).to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(place.size_bytes.to_le_bytes());
    bytes.extend(union.to_le_bytes());
    bytes.extend(place.number.to_le_bytes());
    bytes.extend(attributes.uid.to_le_bytes());
    bytes.extend(attributes.gid.to_le_bytes());
    bytes.extend(attributes.mtime_s.to_le_bytes());
    bytes.extend(attributes.mtime_ns.to_le_bytes());
    bytes.extend(place.links.to_le_bytes());
    bytes.resize(INODE_BYTES as usize, 0);
    bytes.extend(xattrs);
    if place.layout == Layout::Chunk {
        bytes.extend(NO_BLOCK.to_le_bytes());
    }
    bytes
}

/// The size of a chunk that holds a whole file, as its binary logarithm in blocks.
fn chunk_format(size_bytes: u64) -> u32 {
    let blocks = size_bytes.div_ceil(BLOCK_BYTES).max(1);
    blocks.next_power_of_two().trailing_zeros()
}
