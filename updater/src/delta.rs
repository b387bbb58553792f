//! What a new release has in common with the running one, told by their hash trees alone.

use std::collections::HashMap;

use keel_spec::verity::{BLOCK_BYTES, HASH_START_BLOCK, Tree};

use crate::disk::Device;
use crate::plan::MAX_TREE_BYTES;

/// Blocks between two fetches that are fetched along instead: a request costs more than 64 KiB.
const MERGE_BLOCKS: u64 = 16;
/// More separate fetches than this, and the whole file is fetched.
const MAX_FETCHES: usize = 512;
const HASHES_PER_BLOCK: usize = BLOCK_BYTES / 32;

/// Blocks of the running release by the beginning of their hash. Nothing here is relied on: what is copied is checked
/// against the new release's tree like everything else.
pub struct Known(HashMap<u64, u32>);

/// A run of blocks, and where it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// From the running slot.
    Copy {
        /// First block in the new release.
        first: u64,
        /// Blocks.
        count: u64,
        /// First block in the running release.
        from: u64,
    },
    /// From the repository.
    Fetch {
        /// First block.
        first: u64,
        /// Blocks.
        count: u64,
    },
}

impl Run {
    /// Blocks of the run.
    pub fn count(&self) -> u64 {
        match self {
            Self::Copy { count, .. } | Self::Fetch { count, .. } => *count,
        }
    }
}

fn prefix(hash: &[u8]) -> u64 {
    hash.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Known {
    /// Reads the lowest level of the tree in a partition. `None` if there is none that can be read.
    pub fn read(disk: &dyn Device, offset: u64, partition_bytes: u64) -> Option<Self> {
        let mut superblock = vec![0; BLOCK_BYTES];
        disk.read_at(&mut superblock, offset).ok()?;
        // cryptsetup's superblock: the number of data blocks is at byte 72.
        let data_blocks = u64::from_le_bytes(superblock.get(72..80)?.try_into().ok()?);
        let geometry = keel_spec::verity::Geometry::new(data_blocks).ok()?;
        if superblock != geometry.superblock() || geometry.file_bytes() > partition_bytes.min(MAX_TREE_BYTES) {
            return None;
        }
        let (first, blocks) = *geometry.levels().first()?;
        debug_assert!(first >= HASH_START_BLOCK);
        let mut known = HashMap::with_capacity(data_blocks as usize);
        let mut block = vec![0; BLOCK_BYTES];
        for index in 0..blocks {
            disk.read_at(&mut block, offset + (first + index) * BLOCK_BYTES as u64).ok()?;
            let numbers = index * HASHES_PER_BLOCK as u64..data_blocks;
            for (hash, number) in block.chunks(32).zip(numbers) {
                known.entry(prefix(hash)).or_insert(number as u32);
            }
        }
        Some(Self(known))
    }
}

/// Splits a new release into runs, in order and without gaps.
pub fn runs(tree: &Tree, known: Option<&Known>) -> Vec<Run> {
    let blocks = tree.geometry().data_blocks();
    let mut runs: Vec<Run> = Vec::new();
    for block in 0..blocks {
        let from = known.zip(tree.digest(block)).and_then(|(known, hash)| known.0.get(&prefix(hash)).copied());
        match (runs.last_mut(), from) {
            (Some(Run::Fetch { count, .. }), None) => *count += 1,
            (Some(Run::Copy { count, from, .. }), Some(at)) if *from + *count == u64::from(at) => *count += 1,
            (_, None) => runs.push(Run::Fetch { first: block, count: 1 }),
            (_, Some(at)) => runs.push(Run::Copy { first: block, count: 1, from: at.into() }),
        }
    }
    let merged = merge(runs);
    match merged.iter().filter(|run| matches!(run, Run::Fetch { .. })).count() {
        0..=MAX_FETCHES => merged,
        _ => vec![Run::Fetch { first: 0, count: blocks }],
    }
}

/// Short stretches of copies between two fetches are fetched along.
fn merge(runs: Vec<Run>) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::new();
    // Blocks of copies since the last fetch, and where in `merged` they begin.
    let mut since: Option<(usize, u64)> = None;
    for run in runs {
        match (run, since) {
            (Run::Fetch { first, count }, Some((at, copies))) if copies <= MERGE_BLOCKS && at > 0 => {
                merged.truncate(at);
                if let Some(Run::Fetch { first: begin, count: so_far }) = merged.last_mut() {
                    *so_far = first + count - *begin;
                }
                since = Some((merged.len(), 0));
            }
            (Run::Fetch { .. }, _) => {
                merged.push(run);
                since = Some((merged.len(), 0));
            }
            (Run::Copy { count, .. }, _) => {
                merged.push(run);
                since = since.map(|(at, copies)| (at, copies + count));
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_copies_between_fetches_are_fetched_along() {
        let fetch = |first, count| Run::Fetch { first, count };
        let copy = |first, count| Run::Copy { first, count, from: first };
        assert_eq!(
            merge(vec![copy(0, 3), fetch(3, 1), copy(4, 16), fetch(20, 2), copy(22, 17), fetch(39, 1), copy(40, 2)]),
            [copy(0, 3), fetch(3, 19), copy(22, 17), fetch(39, 1), copy(40, 2)]
        );
    }
}
