//! The disk with the slots, as bytes at offsets, and its partition table.
//!
//! Everything is written through the whole disk, so that one descriptor and one order of writes serve slots and tables
//! alike, and the same code runs on a file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use keel_spec::disk::Slot;
use keel_spec::gpt::{BACKUP_SECTORS, Damage, Guid, PRIMARY_SECTORS, SECTOR_BYTES, Table};

use crate::failure::{Failure, Result};

/// Most block devices that are looked at.
const MAX_DISKS: usize = 256;

/// A disk, or a file that stands for one.
pub trait Device: Send {
    /// Its size in bytes.
    fn size_bytes(&self) -> io::Result<u64>;
    /// Fills `buffer` from an offset.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at an offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Returns when everything written is on the medium.
    fn sync(&self) -> io::Result<()>;
    /// Drops clean cached pages of a range, so that it is read from the medium next. Call [`Device::sync`] before.
    fn forget_cache(&self, offset: u64, length: u64) -> io::Result<()>;
}

/// A block device or file.
pub struct FileDevice(File);

impl FileDevice {
    /// Opens a block device or file for reading and writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(path)?))
    }
}

impl Device for FileDevice {
    fn size_bytes(&self) -> io::Result<u64> {
        rustix::fs::seek(&self.0, rustix::fs::SeekFrom::End(0)).map_err(Into::into)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn forget_cache(&self, offset: u64, length: u64) -> io::Result<()> {
        let length = std::num::NonZeroU64::new(length);
        rustix::fs::fadvise(&self.0, offset, length, rustix::fs::Advice::DontNeed).map_err(Into::into)
    }
}

/// Reads the partition table from whichever copy is whole.
pub fn read_table(disk: &dyn Device) -> Result<(Table, Damage)> {
    let size = disk.size_bytes().map_err(Failure::io("tell the size of the disk"))?;
    let read = |offset: u64, sectors: u64| {
        let mut bytes = vec![0; sectors as usize * SECTOR_BYTES];
        disk.read_at(&mut bytes, offset).map(|()| bytes).unwrap_or_default()
    };
    let primary = read(0, PRIMARY_SECTORS);
    let backup = read(size.saturating_sub(BACKUP_SECTORS * SECTOR_BYTES as u64), BACKUP_SECTORS);
    Table::read(&primary, &backup).map_err(Failure::io("read the partition table"))
}

fn write_primary(disk: &dyn Device, table: &Table) -> io::Result<()> {
    disk.write_at(&table.primary(), 0)?;
    disk.sync()
}

fn write_backup(disk: &dyn Device, table: &Table) -> io::Result<()> {
    disk.write_at(&table.backup(), table.backup_lba() * SECTOR_BYTES as u64)?;
    disk.sync()
}

/// Gives the partitions of a slot their GUIDs in both copies of the table. One whole copy is on the disk at any time:
/// a damaged one is mended first, with the table as it was.
pub fn set_guids(disk: &dyn Device, slot: Slot, root: Guid, verity: Guid) -> Result<()> {
    let (mut table, damage) = read_table(disk)?;
    let mended = match damage {
        Damage::None => Ok(()),
        Damage::Primary(_) => write_primary(disk, &table),
        Damage::Backup(_) | Damage::Differ => write_backup(disk, &table),
    };
    mended.map_err(Failure::io("mend the partition table"))?;
    for (label, guid) in [(slot.root_label(), root), (slot.verity_label(), verity)] {
        table.set_unique(label, guid).map_err(Failure::io("change the partition table"))?;
    }
    write_primary(disk, &table)
        .and_then(|()| write_backup(disk, &table))
        .map_err(Failure::io("write the partition table"))
}

/// The device of the whole disk that carries a partition with this GUID, among those in `/sys/class/block`.
pub fn find(holds: impl Fn(&Table) -> bool) -> Result<PathBuf> {
    let folder = fs::read_dir("/sys/class/block").map_err(Failure::io("list /sys/class/block"))?;
    for entry in folder.flatten().take(MAX_DISKS) {
        // Partitions are of no use here; loop, ram and device-mapper devices aren't what a host boots from.
        let name = entry.file_name().to_string_lossy().into_owned();
        let virtual_device = ["loop", "ram", "dm-", "zram", "sr", "fd"].iter().any(|prefix| name.starts_with(prefix));
        if virtual_device || entry.path().join("partition").exists() {
            continue;
        }
        let path = Path::new("/dev").join(name.replace('!', "/"));
        let found = FileDevice::open(&path).ok().and_then(|disk| read_table(&disk).ok());
        if found.is_some_and(|(table, _)| holds(&table)) {
            return Ok(path);
        }
    }
    Err(Failure::new(
        keel_spec::api::ErrorCode::Internal,
        "find the disk that the running release is on: no disk's partition table has its root hash",
    ))
}
