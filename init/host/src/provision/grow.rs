//! The state partition grows to the end of the disk, but for what is kept free there for larger slots: table, then the
//! kernel's idea of the partition, then the file system. Every step looks at what is there, so that one that was cut short
//! is finished at the next boot. A slot that was moved behind the state ends its growth, until an update moves it on.
//!
//! Power may fail at any moment. The backup table goes to the disk's new end first and is synced; until the primary
//! one is written, the old table is in force, and the old backup is still whole. A torn primary is put right
//! from the new backup.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use keel_spec::disk::{STATE_LABEL, reserve_bytes};
use keel_spec::gpt::{BACKUP_SECTORS, Damage, PRIMARY_SECTORS, SECTOR_BYTES, Table};

use super::disk::Disk;
use crate::sys;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was to do.
    Unchanged,
    /// The partition has this many bytes now.
    Grown(u64),
    /// One copy of the partition table was put right.
    Repaired,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("the state partition already has all that it may have"),
            Self::Grown(bytes) => write!(f, "the state partition has grown to {} MiB", bytes >> 20),
            Self::Repaired => f.write_str("a damaged copy of the partition table was put right"),
        }
    }
}

/// Grows the state partition of `disk` and the ext4 on it that is mounted at `mount`.
pub fn grow(disk: &Disk, mount: &Path) -> anyhow::Result<Outcome> {
    let device = disk.device();
    let sectors = sysfs_number(&format!("/sys/class/block/{}/size", disk.name))?;
    let logical = sysfs_number(&format!("/sys/class/block/{}/queue/logical_block_size", disk.name))?;
    if logical != SECTOR_BYTES as u64 {
        bail!("{} has sectors of {logical} bytes, only {SECTOR_BYTES} are supported", device.display());
    }
    let file = OpenOptions::new().read(true).write(true).open(&device);
    let file = file.with_context(|| format!("cannot open {}", device.display()))?;
    let (table, repaired) = grow_table(&file, sectors).with_context(|| format!("disk {}", device.display()))?;

    let Some(state) = table.by_name(STATE_LABEL).filter(|state| state.number == disk.number) else {
        bail!("partition {} is mounted at {}, but is not labelled {STATE_LABEL}", disk.number, mount.display());
    };
    let known = sysfs_number(&format!("/sys/class/block/{}/size", disk.partition))?;
    if known < state.sectors() {
        sys::resize_partition(file.as_fd(), state.number, state.offset_bytes(), state.size_bytes())
            .with_context(|| format!("cannot tell the kernel the new size of {}", disk.partition))?;
    }
    let before = file_system(mount)?.f_blocks;
    grow_file_system(mount, state.size_bytes())?;
    match file_system(mount)?.f_blocks > before {
        true => Ok(Outcome::Grown(state.size_bytes())),
        false if repaired => Ok(Outcome::Repaired),
        false => Ok(Outcome::Unchanged),
    }
}

/// Brings both copies of the table on a disk of this many sectors up to date. Says whether that wrote anything.
pub fn grow_table(disk: &File, sectors: u64) -> anyhow::Result<(Table, bool)> {
    let (primary, backup) = copies(disk, sectors)?;
    let Some((new, writes)) = table_writes(&primary, &backup, sectors)? else {
        return Ok((Table::read(&primary, &backup)?.0, false));
    };
    for (bytes, offset) in writes {
        let written = disk.write_all_at(&bytes, offset).and_then(|()| disk.sync_all());
        written.with_context(|| format!("cannot write the partition table at byte {offset}"))?;
    }
    Ok((new, true))
}

/// Reads the table of a disk of this many sectors from whichever copy is whole.
pub fn read_table(disk: &File, sectors: u64) -> anyhow::Result<(Table, Damage)> {
    let (primary, backup) = copies(disk, sectors)?;
    Ok(Table::read(&primary, &backup)?)
}

fn copies(disk: &File, sectors: u64) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let read = |lba: u64, count: u64| {
        let mut bytes = vec![0; count as usize * SECTOR_BYTES];
        disk.read_exact_at(&mut bytes, lba * SECTOR_BYTES as u64).map(|()| bytes)
    };
    let primary = read(0, PRIMARY_SECTORS).context("cannot read the partition table")?;
    let end = sectors.checked_sub(BACKUP_SECTORS).context("the disk is too small for a partition table")?;
    let backup = read(end, BACKUP_SECTORS).context("cannot read the backup of the partition table")?;
    Ok((primary, backup))
}

/// Bytes of a copy of the table, and where on the disk they go.
pub type TableWrite = (Vec<u8>, u64);

/// What has to be written for both copies of the table to be as they should be on a disk of this many sectors: bytes
/// and where they go, in order, each to be synced before the next. `None`: nothing.
pub fn table_writes(primary: &[u8], backup: &[u8], sectors: u64) -> anyhow::Result<Option<(Table, [TableWrite; 2])>> {
    let (old, damage) = Table::read(primary, backup)?;
    let Some(new) = plan(&old, &damage, sectors)? else { return Ok(None) };
    let writes = [(new.backup(), new.backup_lba() * SECTOR_BYTES as u64), (new.primary(), 0)];
    Ok(Some((new, writes)))
}

/// The table that should be on the disk; `None`: it is there already, in both copies.
fn plan(old: &Table, damage: &Damage, sectors: u64) -> anyhow::Result<Option<Table>> {
    let mut new = old.clone();
    new.resize_disk(sectors)?;
    new.grow(STATE_LABEL, reserve_bytes(sectors.saturating_mul(SECTOR_BYTES as u64)) / SECTOR_BYTES as u64)?;
    Ok((new != *old || *damage != Damage::None).then_some(new))
}

fn grow_file_system(mount: &Path, partition_bytes: u64) -> anyhow::Result<()> {
    let block_bytes = u64::try_from(file_system(mount)?.f_bsize).unwrap_or(0);
    let blocks = partition_bytes.checked_div(block_bytes).context("the file system has blocks of no bytes")?;
    let folder = File::open(mount).with_context(|| format!("cannot open {}", mount.display()))?;
    sys::resize_ext4(folder.as_fd(), blocks)
        .with_context(|| format!("cannot grow the file system at {} to {blocks} blocks", mount.display()))
}

fn file_system(mount: &Path) -> anyhow::Result<rustix::fs::StatFs> {
    rustix::fs::statfs(mount).with_context(|| format!("cannot look at the file system at {}", mount.display()))
}

fn sysfs_number(path: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    text.trim().parse().with_context(|| format!("{path} holds no number"))
}

/// Sectors of a disk or of an image file.
pub fn sectors_of(disk: &mut File) -> std::io::Result<u64> {
    Ok(disk.seek(SeekFrom::End(0))? / SECTOR_BYTES as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::disk::{Identity, Sizes, new_table};
    use keel_spec::gpt::{Extent, Guid};
    use keel_spec::verity::RootHash;

    const GIB: u64 = 1 << 30;

    fn new_disk() -> Table {
        let identity = Identity { disk: Guid::from_u128(1), esp: Guid::from_u128(2), state: Guid::from_u128(3) };
        new_table(&identity, &Sizes::CLOUD, &RootHash::new([7; 32]))
    }

    /// Bytes behind the state that are free once the table has been brought up to date.
    fn left(table: &Table, disk_bytes: u64) -> (Table, u64) {
        let new = plan(table, &Damage::None, disk_bytes / SECTOR_BYTES as u64).unwrap().unwrap_or(table.clone());
        let end = new.by_name(STATE_LABEL).unwrap().last_lba + 1;
        let free = new.free(&[], &[]).into_iter().filter(|area| area.first_lba >= end);
        let free = free.map(|area| area.size_bytes()).sum();
        (new, free)
    }

    #[test]
    fn a_larger_disk_gets_a_larger_state_and_keeps_its_reserve() {
        let (small, free) = left(&new_disk(), 2 * GIB);
        assert_eq!(free, 0);
        let (table, free) = left(&small, 8 * GIB);
        assert!((511..=512).contains(&(free >> 20)), "{free}");
        assert_eq!(left(&table, 8 * GIB), (table.clone(), free));
        let (_, free) = left(&table, 100 * GIB);
        assert!((2047..=2048).contains(&(free >> 20)), "{free}");
    }

    #[test]
    fn a_state_that_has_the_whole_disk_already_keeps_it() {
        let mut table = new_disk();
        table.resize_disk(8 * GIB / SECTOR_BYTES as u64).unwrap();
        table.grow(STATE_LABEL, 0).unwrap();
        assert_eq!(left(&table, 8 * GIB), (table.clone(), 0));
        let (_, free) = left(&table, 9 * GIB);
        assert!((575..=576).contains(&(free >> 20)), "{free}");
    }

    #[test]
    fn a_slot_behind_the_state_ends_its_growth() {
        let (mut table, _) = left(&new_disk(), 8 * GIB);
        let tail = *table.free(&[], &[]).last().unwrap();
        table.set_extent("root-b", &Extent { first_lba: tail.end_lba - 4096, ..tail }).unwrap();
        let (grown, _) = left(&table, 16 * GIB);
        let state = grown.by_name(STATE_LABEL).unwrap();
        assert_eq!(state.last_lba + 1, tail.end_lba - 4096);
        assert_eq!(left(&grown, 16 * GIB).0, grown);
    }
}
