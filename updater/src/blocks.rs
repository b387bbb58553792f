//! Blocks of a file that is being written, against the digests that it has to have.

use std::io;

use keel_spec::blocks::{Digests, is_block};
use keel_spec::verity::BLOCK_BYTES;
use ring::digest;

use crate::area::Area;
use crate::failure::{Failure, Result};
use crate::plan::Target;

/// Blocks that are read or written at once: 256 KiB.
pub const CHUNK_BLOCKS: u64 = 64;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// SHA-256 over parts, as `keel_spec::verity` wants it.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// A file that is being written: what it has to become, and where.
pub struct Image<'a> {
    /// The repository's file.
    pub target: &'a Target,
    /// Its blocks' digests.
    pub digests: &'a dyn Digests,
    /// Where it goes.
    pub area: Area<'a>,
    /// The partition, for messages.
    pub place: &'static str,
}

impl Image<'_> {
    /// Bytes of a run of blocks; the file's last block may be short.
    pub fn bytes_of(&self, first: u64, count: u64) -> u64 {
        let end = (first + count).saturating_mul(BLOCK).min(self.digests.length());
        end.saturating_sub(first * BLOCK)
    }

    /// For each block of `bytes`, which begin at block `first`: whether it is as it has to be.
    pub fn right<'b>(&'b self, first: u64, bytes: &'b [u8]) -> impl Iterator<Item = bool> + 'b {
        let blocks = bytes.chunks(BLOCK_BYTES).zip(first..);
        blocks.map(|(block, number)| is_block(self.digests, number, block, &sha256))
    }

    /// The first block of `bytes` that isn't as it has to be.
    pub fn first_wrong(&self, first: u64, bytes: &[u8]) -> Option<u64> {
        self.right(first, bytes).zip(first..).find(|(right, _)| !right).map(|(_, number)| number)
    }

    /// Writes blocks to their place.
    pub fn put(&self, first: u64, bytes: &[u8]) -> Result<()> {
        let written = self.area.write_at(bytes, first * BLOCK);
        written.map_err(Failure::io(format!("write block {first} to the partition {}", self.place)))
    }

    /// Reads blocks from their place.
    pub fn get(&self, first: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.area.read_at(buffer, first * BLOCK)
    }
}
