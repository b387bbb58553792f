//! Blocks of a root image against its hash tree.

use keel_spec::verity::{BLOCK_BYTES, Tree};
use ring::digest;

/// Blocks that are read or written at once: 256 KiB.
pub const CHUNK_BLOCKS: usize = 64;
/// How often a fetch goes on after failures without progress in between.
pub const MAX_TRIES: u32 = 4;

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

/// The first block of `bytes`, which begin at block `first`, that isn't what the tree says.
pub fn first_wrong(tree: &Tree, first: u64, bytes: &[u8]) -> Option<u64> {
    let mut blocks = bytes.chunks(BLOCK_BYTES).zip(first..);
    blocks.find(|(block, number)| !tree.verifies(*number, block, &sha256)).map(|(_, number)| number)
}
