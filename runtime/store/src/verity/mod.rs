//! The digest by which fs-verity knows a file (kernel: Documentation/filesystems/fsverity.rst): SHA-256, 4 KiB blocks,
//! no salt. Computed here while a file is written, so that it can be named by what the kernel will check it against.
//!
//! - `lanes`: several blocks at a time, for processors without instructions for SHA-256

#[cfg(target_arch = "x86_64")]
pub mod lanes;

use ring::digest::{Context, SHA256};

use crate::digest::Digest;
use crate::sys;

/// Size of a block, of data as of the hash tree.
pub const BLOCK_BYTES: usize = 4096;
/// Length of a hash.
pub const HASH_BYTES: usize = 32;
/// Length of the descriptor that is hashed at the end (`struct fsverity_descriptor`).
const DESCRIPTOR_BYTES: usize = 256;
/// `FS_VERITY_HASH_ALG_SHA256`
pub const SHA256_NUMBER: u8 = 1;

/// Computes the digest of a file piece by piece. Holds one block for each level of the hash tree.
pub struct Hasher {
    block: Vec<u8>,
    /// Unfinished blocks of hashes, those of data first.
    levels: Vec<Vec<u8>>,
    length: u64,
    /// Hash of a block of zeros: holes are made of them.
    zero: [u8; HASH_BYTES],
}

impl Default for Hasher {
    fn default() -> Self {
        Self {
            block: Vec::with_capacity(BLOCK_BYTES),
            levels: Vec::new(),
            length: 0,
            zero: hash_block(&[0; BLOCK_BYTES]),
        }
    }
}

impl Hasher {
    /// Digest of a file that is in memory.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Self::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// The next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.block.is_empty() && bytes.len() >= BLOCK_BYTES {
                let (blocks, rest) = bytes.as_chunks();
                hash_blocks(blocks, |hash| self.push(0, hash));
                bytes = rest;
                continue;
            }
            let room = (BLOCK_BYTES - self.block.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == BLOCK_BYTES {
                self.end_block();
            }
        }
    }

    /// That many zeros.
    pub fn zeros(&mut self, mut count: u64) {
        while count > 0 {
            let room = (BLOCK_BYTES - self.block.len()) as u64;
            if self.block.is_empty() && count >= room {
                self.push(0, self.zero);
                self.length += room;
                count -= room;
            } else {
                let now = usize::try_from(room.min(count)).unwrap_or(BLOCK_BYTES);
                self.update([0; BLOCK_BYTES].get(..now).unwrap_or_default());
                count -= now as u64;
            }
        }
    }

    /// The digest of what has come.
    pub fn finish(mut self) -> Digest {
        let length = self.length;
        if !self.block.is_empty() {
            self.end_block();
        }
        let mut descriptor = [0; DESCRIPTOR_BYTES];
        let head = [1, SHA256_NUMBER, 12, 0, 0, 0, 0, 0];
        for (to, from) in descriptor.iter_mut().zip(head.into_iter().chain(length.to_le_bytes()).chain(self.root())) {
            *to = from;
        }
        Digest::of(&descriptor)
    }

    fn end_block(&mut self) {
        self.block.resize(BLOCK_BYTES, 0);
        let hash = hash_block(&self.block);
        self.block.clear();
        self.push(0, hash);
    }

    /// Adds a hash to a level; a block that is full becomes a hash of the level above.
    fn push(&mut self, level: usize, hash: [u8; HASH_BYTES]) {
        let mut next = Some((level, hash));
        while let Some((level, hash)) = next.take() {
            while self.levels.len() <= level {
                self.levels.push(Vec::new());
            }
            let Some(hashes) = self.levels.get_mut(level) else { return };
            if hashes.len() == BLOCK_BYTES {
                // Only now, when more comes: a full block at the top is the root itself.
                let full = hash_block(hashes);
                hashes.clear();
                next = Some((level + 1, full));
            }
            hashes.extend_from_slice(&hash);
        }
    }

    /// The root of the tree: the one hash of the one block at the top; zeros for an empty file.
    fn root(&mut self) -> [u8; HASH_BYTES] {
        let mut level = 0;
        // Each turn ends a level, and a file of 2^64 bytes has nine.
        while level < self.levels.len() {
            let is_top = level + 1 == self.levels.len();
            let Some(hashes) = self.levels.get_mut(level) else { break };
            if is_top && hashes.len() == HASH_BYTES {
                return hashes.as_slice().try_into().unwrap_or_default();
            }
            let mut block = std::mem::take(hashes);
            block.resize(BLOCK_BYTES, 0);
            self.push(level + 1, hash_block(&block));
            level += 1;
        }
        [0; HASH_BYTES]
    }
}

/// Hashes each block, eight at a time where that is quicker.
fn hash_blocks(blocks: &[[u8; BLOCK_BYTES]], mut each: impl FnMut([u8; HASH_BYTES])) {
    for some in blocks.chunks(8) {
        match sys::hash_side_by_side(some) {
            Some(hashes) => hashes.into_iter().take(some.len()).for_each(&mut each),
            None => some.iter().for_each(|block| each(hash_block(block))),
        }
    }
}

fn hash_block(block: &[u8]) -> [u8; HASH_BYTES] {
    let mut context = Context::new(&SHA256);
    context.update(block);
    context.finish().as_ref().try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree as the kernel's document describes it, level by level, with all of the file at hand.
    fn reference(bytes: &[u8]) -> Digest {
        let mut level: Vec<u8> = bytes.to_vec();
        let mut root = [0; HASH_BYTES];
        if !bytes.is_empty() {
            loop {
                let hashes: Vec<_> = level
                    .chunks(BLOCK_BYTES)
                    .map(|block| {
                        let mut block = block.to_vec();
                        block.resize(BLOCK_BYTES, 0);
                        hash_block(&block)
                    })
                    .collect();
                if let [only] = hashes.as_slice() {
                    root = *only;
                    break;
                }
                level = hashes.concat();
            }
        }
        let mut descriptor = vec![1, 1, 12, 0, 0, 0, 0, 0];
        descriptor.extend((bytes.len() as u64).to_le_bytes());
        descriptor.extend(root);
        descriptor.resize(DESCRIPTOR_BYTES, 0);
        Digest::of(&descriptor)
    }

    #[test]
    fn digests_are_those_of_the_kernels_description() {
        // The digest of an empty file, as fsverity-utils document it.
        let empty = "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
        assert_eq!(Hasher::of(b"").hex(), empty);
        for length in [1, 4095, 4096, 4097, 8192, 128 * 4096 - 1, 128 * 4096, 128 * 4096 + 1, 300 * 4096 + 7] {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 7 % 251) as u8).collect();
            let mut hasher = Hasher::default();
            bytes.chunks(1000).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.finish(), reference(&bytes), "{length} bytes");
        }
        let many = vec![3; 128 * 128 * 4096 + 1];
        assert_eq!(Hasher::of(&many), reference(&many));
        assert_eq!(Hasher::of(&many[1..]), reference(&many[1..]));
    }

    #[test]
    fn blocks_side_by_side_have_the_hashes_of_blocks_alone() {
        let blocks: Vec<[u8; BLOCK_BYTES]> = (0..8u8).map(|n| std::array::from_fn(|at| (at % 253) as u8 ^ n)).collect();
        for count in 3..=8 {
            let some = &blocks[..count];
            let hashes = sys::hash_in_lanes(some).expect("a processor with AVX2");
            let alone: Vec<_> = some.iter().map(|block| hash_block(block)).collect();
            assert_eq!(hashes[..count], alone);
        }
        assert!(sys::hash_in_lanes(&blocks[..2]).is_none() && sys::hash_in_lanes(&[]).is_none());
    }

    #[test]
    fn zeros_are_zeros() {
        for (before, zeros, after) in [(0, 5, 0), (0, 9000, 1), (10, 4086, 3), (10, 20_000, 5000), (4096, 4096, 0)] {
            let mut hasher = Hasher::default();
            hasher.update(&vec![b'x'; before]);
            hasher.zeros(zeros);
            hasher.update(&vec![b'y'; after]);
            let bytes = [vec![b'x'; before], vec![0; usize::try_from(zeros).unwrap()], vec![b'y'; after]].concat();
            assert_eq!(hasher.finish(), reference(&bytes), "{before} {zeros} {after}");
        }
    }
}
