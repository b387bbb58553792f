//! Places on a disk, and those that nothing has taken.

use super::{Entry, PRIMARY_SECTORS, SECTOR_BYTES, Table};
use crate::disk::ALIGNMENT_BYTES;

const UNIT: u64 = ALIGNMENT_BYTES / SECTOR_BYTES as u64;

/// A place on a disk for a partition, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    /// First sector.
    pub first_lba: u64,
    /// The sector after the last.
    pub end_lba: u64,
}

impl Extent {
    /// Where a partition is.
    pub fn of(entry: &Entry) -> Self {
        Self { first_lba: entry.first_lba, end_lba: entry.last_lba.saturating_add(1) }
    }

    /// Bytes from the disk's start.
    pub fn offset_bytes(&self) -> u64 {
        self.first_lba.saturating_mul(SECTOR_BYTES as u64)
    }

    /// Its bytes.
    pub fn size_bytes(&self) -> u64 {
        self.end_lba.saturating_sub(self.first_lba).saturating_mul(SECTOR_BYTES as u64)
    }

    /// Whether they have a sector in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.first_lba < other.end_lba && other.first_lba < self.end_lba
    }
}

impl Table {
    /// What no partition has, in whole units of [`ALIGNMENT_BYTES`], by place; areas that touch each other are one. The
    /// partitions with the labels `released` count as gone, the extents of `taken` as there.
    pub fn free(&self, released: &[&str], taken: &[Extent]) -> Vec<Extent> {
        let stays = |entry: &&Entry| !released.contains(&entry.name.as_str());
        let mut used: Vec<Extent> = self.entries.iter().filter(stays).map(Extent::of).chain(taken.to_vec()).collect();
        used.sort();
        let end = self.last_usable().saturating_add(1);
        used.push(Extent { first_lba: end, end_lba: end });
        let (mut free, mut from) = (Vec::new(), PRIMARY_SECTORS);
        for extent in used {
            // Beyond the highest multiple of a unit there is nothing to begin at.
            let first_lba = from.checked_next_multiple_of(UNIT).unwrap_or(u64::MAX);
            let end_lba = extent.first_lba.min(end) / UNIT * UNIT;
            if first_lba < end_lba {
                free.push(Extent { first_lba, end_lba });
            }
            from = from.max(extent.end_lba);
        }
        free
    }

    /// Puts the partition with this label elsewhere. That nothing else is there is the caller's to see to.
    pub fn set_extent(&mut self, name: &str, extent: &Extent) -> Result<(), super::ChangeError> {
        let entry = self.entries.iter_mut().find(|entry| entry.name == name);
        let entry = entry.ok_or_else(|| super::ChangeError::NoPartition(name.into()))?;
        (entry.first_lba, entry.last_lba) = (extent.first_lba, extent.end_lba.saturating_sub(1));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::ROOT_X86_64;
    use crate::gpt::Guid;

    fn entry(number: u32, first_lba: u64, last_lba: u64, name: &str) -> Entry {
        let unique = Guid::from_u128(number.into());
        Entry { number, kind: ROOT_X86_64, unique, first_lba, last_lba, attributes: 0, name: name.into() }
    }

    fn extents(pairs: &[(u64, u64)]) -> Vec<Extent> {
        pairs.iter().map(|(first_lba, end_lba)| Extent { first_lba: *first_lba, end_lba: *end_lba }).collect()
    }

    #[test]
    fn gaps_are_found_and_neighbours_that_go_join_them() {
        let entries = vec![entry(1, 4096, 8191, "a"), entry(2, 8192, 10239, "b"), entry(3, 20480, 30719, "state")];
        let table = Table { entries, ..Table::new(Guid::from_u128(7), 40960) };
        assert_eq!(table.free(&[], &[]), extents(&[(2048, 4096), (10240, 20480), (30720, 38912)]));
        assert_eq!(table.free(&["b"], &[]), extents(&[(2048, 4096), (8192, 20480), (30720, 38912)]));
        let taken = extents(&[(12288, 14336)]);
        assert_eq!(table.free(&["a", "b"], &taken), extents(&[(2048, 12288), (14336, 20480), (30720, 38912)]));
    }

    #[test]
    fn tables_that_contradict_themselves_have_no_free_space_where_anything_is() {
        let entries = vec![
            entry(1, 2048, u64::MAX, "endless"),
            entry(2, 9000, 100, "backwards"),
            entry(3, 4096, 9999, "on another"),
        ];
        let table = Table { entries, ..Table::new(Guid::from_u128(7), 40960) };
        assert_eq!(table.free(&[], &[]), []);
        assert_eq!(table.free(&["endless"], &[]), extents(&[(2048, 4096), (10240, 38912)]));
        assert_eq!(Table::new(Guid::ZERO, 0).free(&[], &[]), []);
    }
}
