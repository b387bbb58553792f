//! Digests of a file's blocks of 4 KiB, for deltas.
//!
//! A root image has them in its hash tree. A UKI has them in a list of its own, a target of the update repository: 16
//! bytes of magic and length, then the SHA-256 of each block, salted as in the tree, so that blocks of one file are
//! found in the other. The last block is filled up with zeros.

use crate::verity::{BLOCK_BYTES, Sha256, Tree, block_hash};

/// What a block list begins with.
const MAGIC: [u8; 8] = *b"keelblk1";
const HEADER_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
/// Largest file that has a block list: 1 GiB. Its list takes 8 MiB.
pub const MAX_FILE_BYTES: u64 = 1 << 30;

/// A file whose blocks can be told from their digests.
pub trait Digests: Sync {
    /// Bytes of the file.
    fn length(&self) -> u64;
    /// The digest that a block must have; `None` beyond the last one.
    fn digest(&self, block: u64) -> Option<&[u8; 32]>;

    /// Blocks of the file, the last one perhaps not full.
    fn blocks(&self) -> u64 {
        self.length().div_ceil(BLOCK_BYTES as u64)
    }
}

/// Whether these bytes, which may be short only at the file's end, are that block.
pub fn is_block(digests: &dyn Digests, block: u64, bytes: &[u8], sha256: &impl Sha256) -> bool {
    let start = block.saturating_mul(BLOCK_BYTES as u64);
    let wanted = digests.length().saturating_sub(start).min(BLOCK_BYTES as u64);
    bytes.len() as u64 == wanted && digests.digest(block) == Some(&digest(bytes, sha256))
}

/// The digest of a block of at most 4 KiB.
pub fn digest(bytes: &[u8], sha256: &impl Sha256) -> [u8; 32] {
    if bytes.len() == BLOCK_BYTES {
        return block_hash(bytes, sha256);
    }
    let mut whole = [0; BLOCK_BYTES];
    let length = bytes.len().min(BLOCK_BYTES);
    whole[..length].copy_from_slice(&bytes[..length]);
    block_hash(&whole, sha256)
}

impl Digests for Tree {
    fn length(&self) -> u64 {
        self.geometry().data_blocks() * BLOCK_BYTES as u64
    }

    fn digest(&self, block: u64) -> Option<&[u8; 32]> {
        Tree::digest(self, block)
    }
}

/// Why bytes aren't a block list.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockListError {
    /// They don't begin as one.
    #[error("it doesn't begin as a block list")]
    Magic,
    /// It is for a file that can't have one.
    #[error("it is for a file of {0} bytes, want 1 to {MAX_FILE_BYTES}")]
    FileBytes(u64),
    /// It has the wrong size.
    #[error("it has {0} bytes, want {1}")]
    Size(u64, u64),
}

/// Digests of the blocks of a file, the UKI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockList {
    length: u64,
    digests: Vec<u8>,
}

impl BlockList {
    /// Of a file's content.
    pub fn of(content: &[u8], sha256: &impl Sha256) -> Self {
        let digests = content.chunks(BLOCK_BYTES).flat_map(|block| digest(block, sha256)).collect();
        Self { length: content.len() as u64, digests }
    }

    /// Of a file of this length, from the digests of its blocks, in order.
    pub fn of_digests(length: u64, digests: impl IntoIterator<Item = [u8; DIGEST_BYTES]>) -> Self {
        Self { length, digests: digests.into_iter().flatten().collect() }
    }

    /// Bytes of the list for a file of this length.
    pub fn list_bytes(length: u64) -> u64 {
        length.div_ceil(BLOCK_BYTES as u64).saturating_mul(DIGEST_BYTES as u64).saturating_add(HEADER_BYTES as u64)
    }

    /// Reads a list. Whether it is to be believed is for its caller to know.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, BlockListError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BlockListError::Magic)?;
        if header[..8] != MAGIC {
            return Err(BlockListError::Magic);
        }
        let length = header[8..].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        if !(1..=MAX_FILE_BYTES).contains(&length) {
            return Err(BlockListError::FileBytes(length));
        }
        if bytes.len() as u64 != Self::list_bytes(length) {
            return Err(BlockListError::Size(bytes.len() as u64, Self::list_bytes(length)));
        }
        let mut digests = bytes;
        digests.drain(..HEADER_BYTES);
        Ok(Self { length, digests })
    }

    /// The list as bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&MAGIC[..], &self.length.to_le_bytes(), &self.digests].concat()
    }
}

impl Digests for BlockList {
    fn length(&self) -> u64 {
        self.length
    }

    fn digest(&self, block: u64) -> Option<&[u8; 32]> {
        let at = usize::try_from(block).ok()?.checked_mul(DIGEST_BYTES)?;
        self.digests.get(at..at.checked_add(DIGEST_BYTES)?)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn toy_hash(parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = [7u8; 32];
        for (at, byte) in parts.iter().flat_map(|part| part.iter()).enumerate() {
            hash[at % 32] = hash[at % 32].rotate_left(3) ^ byte;
        }
        hash
    }

    #[test]
    fn a_list_vouches_for_its_blocks_and_for_the_short_last_one() {
        let content: Vec<u8> = (0..10_000u32).map(|number| (number / 7) as u8).collect();
        let list = BlockList::parse(BlockList::of(&content, &toy_hash).to_bytes()).unwrap();
        assert_eq!((list.length(), list.blocks()), (10_000, 3));
        assert!(is_block(&list, 0, &content[..4096], &toy_hash));
        assert!(is_block(&list, 2, &content[8192..], &toy_hash));
        assert!(!is_block(&list, 2, &content[8192..9999], &toy_hash));
        assert!(!is_block(&list, 1, &content[..4096], &toy_hash));
        assert!(!is_block(&list, 3, &[], &toy_hash));
    }

    #[test]
    fn hostile_lists_are_refused() {
        let good = BlockList::of(&[1; 5000], &toy_hash).to_bytes();
        for length in 0..good.len() {
            assert!(BlockList::parse(good[..length].to_vec()).is_err(), "{length}");
        }
        for huge in [0, MAX_FILE_BYTES + 1, u64::MAX] {
            let mut list = good.clone();
            list[8..16].copy_from_slice(&huge.to_le_bytes());
            assert_eq!(BlockList::parse(list), Err(BlockListError::FileBytes(huge)));
        }
    }
}
