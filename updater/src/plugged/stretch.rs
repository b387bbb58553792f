//! The partitions of a disk, whatever its table: GPT ([`keel_spec::gpt`]) or MBR (UEFI Specification 2.10, section
//! 5.2.1). No I/O but for the reading of the table.

use keel_spec::gpt::SECTOR_BYTES;

use crate::disk::{self, Device};

/// Types of MBR entries that are no partition to look into: extended ones (whose chain isn't followed), and the one
/// that only protects a GPT.
const NO_VOLUME: [u8; 5] = [0, 0x05, 0x0f, 0x85, 0xee];

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Its number, from 1.
    pub number: u32,
    /// Bytes from the disk's start.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// The partitions of a disk of so many bytes; none, if it has no table.
pub fn of(device: &dyn Device, disk_bytes: u64) -> Vec<Stretch> {
    if let Ok((table, _)) = disk::read_table(device) {
        let all = table.entries.iter().map(|entry| Stretch {
            number: entry.number,
            offset: entry.offset_bytes(),
            length: entry.size_bytes(),
        });
        return all.filter(|stretch| is_on(stretch, disk_bytes)).collect();
    }
    let mut sector = [0; SECTOR_BYTES];
    match device.read_at(&mut sector, 0) {
        Ok(()) => mbr(&sector, disk_bytes),
        Err(_) => Vec::new(),
    }
}

fn is_on(stretch: &Stretch, disk_bytes: u64) -> bool {
    let end = stretch.offset.checked_add(stretch.length);
    stretch.offset > 0 && stretch.length > 0 && end.is_some_and(|end| end <= disk_bytes)
}

/// The primary partitions of an MBR.
pub fn mbr(sector: &[u8; SECTOR_BYTES], disk_bytes: u64) -> Vec<Stretch> {
    if sector[510..] != [0x55, 0xaa] {
        return Vec::new();
    }
    let entries = sector[446..510].chunks_exact(16).zip(1..);
    let stretch = |(entry, number): (&[u8], u32)| {
        let u32_at =
            |at: usize| u64::from(u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]]));
        // The boot sector of a volume has the same signature, and code in this place.
        let usable = matches!(entry[0], 0 | 0x80) && !NO_VOLUME.contains(&entry[4]);
        let bytes = SECTOR_BYTES as u64;
        usable.then(|| Stretch { number, offset: u32_at(8) * bytes, length: u32_at(12) * bytes })
    };
    entries.filter_map(stretch).filter(|stretch| is_on(stretch, disk_bytes)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sector(entries: &[(u8, u8, u32, u32)]) -> [u8; SECTOR_BYTES] {
        let mut sector = [0; SECTOR_BYTES];
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        for (entry, (status, kind, first, count)) in sector[446..510].chunks_exact_mut(16).zip(entries) {
            (entry[0], entry[4]) = (*status, *kind);
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..16].copy_from_slice(&count.to_le_bytes());
        }
        sector
    }

    #[test]
    fn only_partitions_that_are_on_the_disk_are_looked_into() {
        let disk = 1000 * SECTOR_BYTES as u64;
        let one = Stretch { number: 1, offset: 512, length: 512 * 999 };
        assert_eq!(mbr(&sector(&[(0x80, 0x0c, 1, 999)]), disk), [one]);
        let odd = [(0, 0x0c, 1, 1000), (0, 0x0c, u32::MAX, u32::MAX), (0, 0x0c, 0, 5), (1, 0x0c, 1, 1)];
        assert_eq!(mbr(&sector(&odd), disk), []);
        assert_eq!(mbr(&sector(&[(0, 5, 1, 9), (0, 0xee, 1, 9), (0, 0x0c, 9, 0)]), disk), []);
        let second = mbr(&sector(&[(0, 0, 0, 0), (0, 0x0b, 2, 3)]), disk);
        assert_eq!(second, [Stretch { number: 2, offset: 1024, length: 1536 }]);
        let mut unsigned = sector(&[(0x80, 0x0c, 1, 999)]);
        unsigned[510] = 0;
        assert_eq!(mbr(&unsigned, disk), []);
    }
}
