//! Which cluster follows which (specification, section 4).

use std::collections::BTreeSet;

use super::layout::{FatError, Layout, SECTOR};
use crate::area::Area;

const MASK: u32 = 0x0fff_ffff;
const END: u32 = 0x0fff_ffff;
const FIRST_END: u32 = 0x0fff_fff8;
const BAD: u32 = 0x0fff_fff7;
const PER_SECTOR: u32 = (SECTOR / 4) as u32;

/// The table in memory; changes go to the disk with [`Table::write`].
pub struct Table {
    entries: Vec<u32>,
    /// Sectors of the table that were changed.
    changed: BTreeSet<u32>,
}

impl Table {
    /// Reads the first copy, which is the one that counts.
    pub fn read(area: &Area, layout: &Layout) -> Result<Self, FatError> {
        let count = layout.clusters + 2;
        let mut bytes = vec![0; count.div_ceil(PER_SECTOR) as usize * SECTOR];
        area.read_at(&mut bytes, layout.tables[0] * SECTOR as u64)?;
        let entries = bytes.chunks_exact(4).map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]));
        Ok(Self { entries: entries.collect(), changed: BTreeSet::new() })
    }

    fn get(&self, cluster: u32) -> u32 {
        self.entries.get(cluster as usize).map_or(BAD, |entry| entry & MASK)
    }

    /// The upper four bits are not part of an entry and stay as they are.
    fn set(&mut self, cluster: u32, value: u32) {
        if let Some(entry) = self.entries.get_mut(cluster as usize) {
            *entry = *entry & !MASK | value;
            self.changed.insert(cluster / PER_SECTOR);
        }
    }

    /// The clusters of a file, by its first one. A chain that leaves the volume or never ends is an error.
    pub fn chain(&self, layout: &Layout, first: u32) -> Result<Vec<u32>, FatError> {
        let mut chain = Vec::new();
        let mut next = first;
        while next < FIRST_END {
            if !layout.has(next) || chain.len() > layout.clusters as usize {
                return Err(FatError::Damaged(format!("the clusters from {first} on lead nowhere")));
            }
            chain.push(next);
            next = self.get(next);
        }
        Ok(chain)
    }

    /// Free clusters.
    pub fn free(&self, layout: &Layout) -> u64 {
        (2..layout.clusters + 2).filter(|cluster| self.get(*cluster) == 0).count() as u64
    }

    /// Takes free clusters, the lowest run that is long enough if there is one; chains them.
    pub fn take(&mut self, layout: &Layout, count: u32) -> Option<Vec<u32>> {
        let free = |cluster: &u32| self.get(*cluster) == 0;
        let all: Vec<u32> = (2..layout.clusters + 2).filter(free).collect();
        let window = count as usize;
        let together =
            all.windows(window.max(1)).find(|run| run.last().zip(run.first()).is_some_and(|(l, f)| l - f + 1 == count));
        let taken = together.or_else(|| all.get(..window))?.to_vec();
        for (index, cluster) in taken.iter().enumerate() {
            self.set(*cluster, taken.get(index + 1).copied().unwrap_or(END));
        }
        Some(taken)
    }

    /// Appends a cluster that was taken to a chain.
    pub fn append(&mut self, last: u32, cluster: u32) {
        self.set(last, cluster);
    }

    /// Frees clusters.
    pub fn give_back(&mut self, clusters: &[u32]) {
        clusters.iter().for_each(|cluster| self.set(*cluster, 0));
    }

    /// Frees every cluster that isn't in use; says how many.
    pub fn free_all_but(&mut self, layout: &Layout, used: &BTreeSet<u32>) -> usize {
        let lost = |cluster: &u32| !matches!(self.get(*cluster), 0 | BAD) && !used.contains(cluster);
        let lost: Vec<u32> = (2..layout.clusters + 2).filter(lost).collect();
        self.give_back(&lost);
        lost.len()
    }

    /// Writes what was changed into all copies, the one that counts first.
    pub fn write(&mut self, area: &Area, layout: &Layout) -> Result<(), FatError> {
        let changed = std::mem::take(&mut self.changed);
        for start in &layout.tables[..layout.table_count] {
            for sector in &changed {
                let first = (sector * PER_SECTOR) as usize;
                let entries = &self.entries[first..first + PER_SECTOR as usize];
                let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_le_bytes()).collect();
                area.write_at(&bytes, (start + u64::from(*sector)) * SECTOR as u64)?;
            }
        }
        Ok(())
    }
}
