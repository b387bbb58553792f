//! A tree as an erofs file system in the form of composefs (kernel: Documentation/filesystems/erofs.rst, overlayfs.rst
//! "Data-only lower layers"; github.com/composefs/composefs): it holds all names and attributes and the content of small
//! files. Of other files it says which object has the content (`trusted.overlay.redirect`) and which fs-verity digest the
//! kernel is to find there (`trusted.overlay.metacopy`), both of which overlayfs reads.
//!
//! The same tree gives the same bytes. Nothing needs to be escaped: archives can't bring attributes of overlayfs.
//!
//! - `folder`: names of a folder as blocks
//! - `inode`: one file's metadata as bytes
//! - `plan`: where everything lies
//! - `write`: all of it as a file

mod folder;
mod inode;
mod plan;
#[cfg(test)]
mod tests;
mod write;

pub use write::write;

/// Size of a block.
const BLOCK_BYTES: u64 = 4096;
/// Inodes lie at multiples of it; an inode's number is its offset in these.
const SLOT_BYTES: u64 = 32;
/// Length of an inode with all fields (`struct erofs_inode_extended`).
const INODE_BYTES: u64 = 64;
/// Where the superblock lies.
const SUPERBLOCK_AT: u64 = 1024;
/// Where the first inode lies, which is the root's: behind the superblock.
const FIRST_INODE_AT: u64 = SUPERBLOCK_AT + 128;
/// Longest end of a file's data that lies behind its inode. It may not cross a block, so some room has to be left.
const MAX_TAIL_BYTES: u64 = 4000;
