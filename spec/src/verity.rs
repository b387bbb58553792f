//! The geometry of a dm-verity hash tree (kernel: `Documentation/admin-guide/device-mapper/verity.rst`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a data block and of a hash block.
pub const BLOCK_BYTES: usize = 4096;

/// Root of a hash tree: SHA-256, written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootHash([u8; 32]);

/// Why text isn't a root hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a root hash: want 64 hexadecimal digits")]
pub struct InvalidRootHash(pub String);

impl RootHash {
    /// From the hash itself.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for RootHash {
    type Err = InvalidRootHash;

    fn from_str(text: &str) -> Result<Self, InvalidRootHash> {
        let refuse = || InvalidRootHash(text.chars().take(80).collect());
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for RootHash {
    type Error = InvalidRootHash;

    fn try_from(text: String) -> Result<Self, InvalidRootHash> {
        text.parse()
    }
}

impl From<RootHash> for String {
    fn from(hash: RootHash) -> String {
        hash.to_string()
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({self})")
    }
}

/// The salt of every Keel release. It is constant, so that equal blocks have equal hashes in every release, which is
/// what deltas need. It is no secret; it only keeps these hashes apart from those of other products.
pub const SALT: [u8; 32] = *b"Keel release block hashes, v1\0\0\0";
/// The superblock's UUID, constant: what tells releases apart is the roothash.
pub const SUPERBLOCK_UUID: [u8; 16] = *b"keel-dm-verity-1";
/// Blocks before the first hash block of a tree's file: the superblock's.
pub const HASH_START_BLOCK: u64 = 1;
/// The largest root that is handled, in blocks (16 GiB). Its tree takes 130 MiB of memory.
pub const MAX_DATA_BLOCKS: u64 = 1 << 22;

const DIGEST_BYTES: usize = 32;
const DIGESTS_PER_BLOCK: u64 = (BLOCK_BYTES / DIGEST_BYTES) as u64;

/// SHA-256 over the concatenation of the parts. Given from outside, so that no cryptography is needed here.
pub trait Sha256: Fn(&[&[u8]]) -> [u8; 32] {}
impl<F: Fn(&[&[u8]]) -> [u8; 32]> Sha256 for F {}

/// Why a tree can't be made or used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// The number of data blocks can't be handled.
    #[error("a root of {0} blocks can't have a hash tree: want 2 to {MAX_DATA_BLOCKS}")]
    DataBlocks(u64),
    /// More or fewer blocks were given than announced.
    #[error("hash tree was announced for {announced} blocks, but {given} were given")]
    Count {
        /// Blocks that the tree is for.
        announced: u64,
        /// Blocks given.
        given: u64,
    },
    /// The tree's file has the wrong size.
    #[error("hash tree has {0} bytes, want {1}")]
    Size(u64, u64),
    /// The superblock isn't the one that belongs to a Keel release of this size.
    #[error("hash tree's superblock is not that of a Keel release of this size")]
    Superblock,
    /// A hash block isn't what its parent, or the roothash, says.
    #[error("hash block {0} of the tree does not have the hash it should have")]
    HashBlock(u64),
}

/// Where the levels of a tree are in its file. Level 0 holds the hashes of data blocks; the last level is one block.
/// In the file the last level comes first, as `veritysetup` writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Geometry {
    data_blocks: u64,
    /// First block in the file, and number of blocks, of each level.
    levels: Vec<(u64, u64)>,
}

impl Geometry {
    /// Of a tree over this many data blocks.
    pub fn new(data_blocks: u64) -> Result<Self, TreeError> {
        if !(2..=MAX_DATA_BLOCKS).contains(&data_blocks) {
            return Err(TreeError::DataBlocks(data_blocks));
        }
        let mut sizes = vec![data_blocks.div_ceil(DIGESTS_PER_BLOCK)];
        // Ends: each level is 128 times smaller than the one below it.
        while let Some(&below) = sizes.last().filter(|&&below| below > 1) {
            sizes.push(below.div_ceil(DIGESTS_PER_BLOCK));
        }
        let mut first = HASH_START_BLOCK;
        let mut levels: Vec<(u64, u64)> = sizes
            .into_iter()
            .rev()
            .map(|blocks| {
                first += blocks;
                (first - blocks, blocks)
            })
            .collect();
        levels.reverse();
        Ok(Self { data_blocks, levels })
    }

    /// Data blocks that the tree covers.
    pub fn data_blocks(&self) -> u64 {
        self.data_blocks
    }

    /// First block in the file, and number of blocks, of each level; level 0 first.
    pub fn levels(&self) -> &[(u64, u64)] {
        &self.levels
    }

    /// Bytes of the tree's file.
    pub fn file_bytes(&self) -> u64 {
        (HASH_START_BLOCK + self.levels.iter().map(|(_, blocks)| blocks).sum::<u64>()) * BLOCK_BYTES as u64
    }

    /// Where in the tree's file the hash of a data block is; `None` beyond the last block.
    pub fn digest_offset(&self, data_block: u64) -> Option<u64> {
        (data_block < self.data_blocks)
            .then(|| self.levels[0].0 * BLOCK_BYTES as u64 + data_block * DIGEST_BYTES as u64)
    }

    fn digest_range(&self, level: usize, index: u64) -> std::ops::Range<usize> {
        let at = self.levels[level].0 as usize * BLOCK_BYTES + index as usize * DIGEST_BYTES;
        at..at + DIGEST_BYTES
    }

    /// Block 0 of the tree's file: the superblock as `veritysetup format` writes it (cryptsetup's on-disk format, v1).
    pub fn superblock(&self) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        bytes[..6].copy_from_slice(b"verity");
        bytes[8..12].copy_from_slice(&1u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&1u32.to_le_bytes());
        bytes[16..32].copy_from_slice(&SUPERBLOCK_UUID);
        bytes[32..38].copy_from_slice(b"sha256");
        bytes[64..68].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        bytes[68..72].copy_from_slice(&(BLOCK_BYTES as u32).to_le_bytes());
        bytes[72..80].copy_from_slice(&self.data_blocks.to_le_bytes());
        bytes[80..82].copy_from_slice(&(SALT.len() as u16).to_le_bytes());
        bytes[88..88 + SALT.len()].copy_from_slice(&SALT);
        bytes
    }
}

/// The hash of a data block or of a hash block: salt first (hash type 1).
pub fn block_hash(block: &[u8], sha256: &impl Sha256) -> [u8; 32] {
    sha256(&[&SALT, block])
}

/// The target's parameters for device-mapper: `1 <data> <hash> 4096 4096 <blocks> 1 sha256 <roothash> <salt>`, with
/// optional parameters such as `restart_on_corruption`.
pub fn dm_table(data: &str, hash: &str, data_blocks: u64, root_hash: &RootHash, options: &[&str]) -> String {
    let salt = RootHash(SALT);
    let mut line = format!(
        "1 {data} {hash} {BLOCK_BYTES} {BLOCK_BYTES} {data_blocks} {HASH_START_BLOCK} sha256 {root_hash} {salt}"
    );
    if !options.is_empty() {
        line.push_str(&format!(" {} {}", options.len(), options.join(" ")));
    }
    line
}

/// Makes a tree, block by block. Needs the tree's own size of memory.
pub struct Builder<H> {
    geometry: Geometry,
    sha256: H,
    bytes: Vec<u8>,
    fed: u64,
}

impl<H: Sha256> Builder<H> {
    /// For a root of this many blocks.
    pub fn new(data_blocks: u64, sha256: H) -> Result<Self, TreeError> {
        let geometry = Geometry::new(data_blocks)?;
        let mut bytes = vec![0; geometry.file_bytes() as usize];
        bytes[..BLOCK_BYTES].copy_from_slice(&geometry.superblock());
        Ok(Self { geometry, sha256, bytes, fed: 0 })
    }

    /// Takes the next data block.
    pub fn feed(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<(), TreeError> {
        if self.fed >= self.geometry.data_blocks {
            return Err(TreeError::Count { announced: self.geometry.data_blocks, given: self.fed + 1 });
        }
        let hash = block_hash(block, &self.sha256);
        self.bytes[self.geometry.digest_range(0, self.fed)].copy_from_slice(&hash);
        self.fed += 1;
        Ok(())
    }

    /// The tree's file and the roothash, after the last block.
    pub fn finish(mut self) -> Result<(Vec<u8>, RootHash), TreeError> {
        if self.fed != self.geometry.data_blocks {
            return Err(TreeError::Count { announced: self.geometry.data_blocks, given: self.fed });
        }
        let mut root = [0; 32];
        for (level, &(first, blocks)) in self.geometry.levels.iter().enumerate() {
            for index in 0..blocks {
                let at = (first + index) as usize * BLOCK_BYTES;
                let hash = block_hash(&self.bytes[at..at + BLOCK_BYTES], &self.sha256);
                if level + 1 < self.geometry.levels.len() {
                    self.bytes[self.geometry.digest_range(level + 1, index)].copy_from_slice(&hash);
                } else {
                    root = hash;
                }
            }
        }
        Ok((self.bytes, RootHash(root)))
    }
}

/// A tree that was checked against a roothash, so every hash in it can be relied on.
#[derive(Debug)]
pub struct Tree {
    geometry: Geometry,
    bytes: Vec<u8>,
}

impl Tree {
    /// Checks a tree's file: its size, its superblock, and every hash block up to the roothash.
    pub fn check(
        bytes: Vec<u8>,
        data_blocks: u64,
        root_hash: &RootHash,
        sha256: &impl Sha256,
    ) -> Result<Self, TreeError> {
        let geometry = Geometry::new(data_blocks)?;
        if bytes.len() as u64 != geometry.file_bytes() {
            return Err(TreeError::Size(bytes.len() as u64, geometry.file_bytes()));
        }
        if bytes[..BLOCK_BYTES] != geometry.superblock() {
            return Err(TreeError::Superblock);
        }
        for (level, &(first, blocks)) in geometry.levels.iter().enumerate() {
            for index in 0..blocks {
                let at = (first + index) as usize * BLOCK_BYTES;
                let wanted = match level + 1 < geometry.levels.len() {
                    true => &bytes[geometry.digest_range(level + 1, index)],
                    false => root_hash.as_bytes().as_slice(),
                };
                if block_hash(&bytes[at..at + BLOCK_BYTES], sha256) != wanted {
                    return Err(TreeError::HashBlock(first + index));
                }
            }
        }
        Ok(Self { geometry, bytes })
    }

    /// Its geometry.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The tree's file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The hash that a data block must have; `None` beyond the last block.
    pub fn digest(&self, data_block: u64) -> Option<&[u8; 32]> {
        let at = self.geometry.digest_offset(data_block)? as usize;
        self.bytes.get(at..at + DIGEST_BYTES)?.try_into().ok()
    }

    /// Whether these bytes are that data block.
    pub fn verifies(&self, data_block: u64, block: &[u8], sha256: &impl Sha256) -> bool {
        block.len() == BLOCK_BYTES && self.digest(data_block) == Some(&block_hash(block, sha256))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No cryptography here: any function of all bytes serves to test the tree's structure.
    fn toy_hash(parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = [7u8; 32];
        for (at, byte) in parts.iter().flat_map(|part| part.iter()).enumerate() {
            let place = &mut hash[at % 32];
            *place = (place.wrapping_mul(31) ^ byte).rotate_left(3).wrapping_add(5);
        }
        hash
    }

    fn build(data_blocks: u64) -> (Vec<u8>, RootHash) {
        let mut builder = Builder::new(data_blocks, toy_hash).unwrap();
        (0..data_blocks).for_each(|number| builder.feed(&[number as u8; BLOCK_BYTES]).unwrap());
        builder.finish().unwrap()
    }

    #[test]
    fn levels_are_laid_out_from_the_top() {
        assert_eq!(Geometry::new(2).unwrap().levels(), [(1, 1)]);
        assert_eq!(Geometry::new(129).unwrap().levels(), [(2, 2), (1, 1)]);
        let large = Geometry::new(128 * 128 + 1).unwrap();
        assert_eq!(large.levels(), [(4, 129), (2, 2), (1, 1)]);
        assert_eq!(large.file_bytes(), 133 * 4096);
        assert_eq!(Geometry::new(1), Err(TreeError::DataBlocks(1)));
        assert!(Geometry::new(u64::MAX).is_err());
    }

    #[test]
    fn a_built_tree_checks_and_vouches_for_its_blocks() {
        let (bytes, root) = build(300);
        let tree = Tree::check(bytes, 300, &root, &toy_hash).unwrap();
        assert!(tree.verifies(299, &[43; BLOCK_BYTES], &toy_hash));
        assert!(!tree.verifies(299, &[44; BLOCK_BYTES], &toy_hash));
        assert!(!tree.verifies(300, &[44; BLOCK_BYTES], &toy_hash));
    }

    #[test]
    fn every_changed_hash_block_is_found() {
        let (bytes, root) = build(300);
        for block in 1..5 {
            let mut changed = bytes.clone();
            changed[block * BLOCK_BYTES + 5] ^= 1;
            assert!(Tree::check(changed, 300, &root, &toy_hash).is_err(), "{block}");
        }
        assert_eq!(
            Tree::check(bytes[..8192].to_vec(), 300, &root, &toy_hash).unwrap_err(),
            TreeError::Size(8192, 20480)
        );
        let mut changed = bytes;
        changed[100] ^= 1;
        assert_eq!(Tree::check(changed, 300, &root, &toy_hash).unwrap_err(), TreeError::Superblock);
    }
}
