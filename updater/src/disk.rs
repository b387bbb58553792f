//! The disk with the slots, as bytes at offsets, and its partition table.
//!
//! Everything is written through the whole disk, so that one descriptor and one order of writes serve slots and tables
//! alike, and the same code runs on a file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keel_spec::disk::{ESP_LABEL, STATE_LABEL, Slot};
use keel_spec::gpt::{BACKUP_SECTORS, ChangeError, Damage, Extent, Guid, PRIMARY_SECTORS, SECTOR_BYTES, Table};

use crate::failure::{Failure, Result};

/// Most block devices that are looked at.
const MAX_DISKS: usize = 256;
/// How long a partition that is in use is waited for: 5 s.
const BUSY_TRIES: u32 = 50;
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// A disk, or a file that stands for one.
pub trait Device: Send + Sync {
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

    /// Opens a block device or file for reading alone.
    pub fn open_to_read(path: &Path) -> io::Result<Self> {
        Ok(Self(File::open(path)?))
    }

    /// Opens a partition that nobody else may use meanwhile (open(2), `O_EXCL` on block devices). Another program that
    /// has it mounted for a moment is waited for.
    pub fn open_alone(path: &Path) -> io::Result<Self> {
        let mut tries = 0;
        loop {
            let exclusive = rustix::fs::OFlags::EXCL.bits() as i32;
            match OpenOptions::new().read(true).write(true).custom_flags(exclusive).open(path) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && tries < BUSY_TRIES => {
                    tries += 1;
                    std::thread::sleep(BUSY_PAUSE);
                }
                opened => return Ok(Self(opened?)),
            }
        }
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

/// A disk of which parts can't be written, whatever is asked: the slot that is running, and the state partition.
pub struct Fenced<'a> {
    disk: &'a dyn Device,
    /// Bytes that nothing may be written to.
    kept: Vec<Range<u64>>,
}

impl<'a> Fenced<'a> {
    /// Fences a slot and the state partition where the table has them.
    pub fn new(disk: &'a dyn Device, table: &Table, slot: Slot) -> Self {
        let labels = [slot.root_label(), slot.verity_label(), STATE_LABEL];
        let extents = labels.into_iter().filter_map(|label| table.by_name(label)).map(Extent::of);
        let bytes = |extent: Extent| extent.offset_bytes()..extent.offset_bytes().saturating_add(extent.size_bytes());
        Self { disk, kept: extents.map(bytes).collect() }
    }
}

impl Device for Fenced<'_> {
    fn size_bytes(&self) -> io::Result<u64> {
        self.disk.size_bytes()
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.disk.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes.len() as u64);
        if self.kept.iter().any(|kept| offset < kept.end && kept.start < end) {
            let message = format!("refused to write at byte {offset}: the running release or the state is there");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
        }
        self.disk.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.sync()
    }

    fn forget_cache(&self, offset: u64, length: u64) -> io::Result<()> {
        self.disk.forget_cache(offset, length)
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

/// Gives the partitions of a slot their GUIDs, and other places if they move, in both copies of the table.
pub fn set_slot(disk: &dyn Device, slot: Slot, guids: [Guid; 2], places: Option<&[Extent; 2]>) -> Result<()> {
    change_table(disk, |table| {
        for (index, label) in [slot.root_label(), slot.verity_label()].into_iter().enumerate() {
            table.set_unique(label, guids[index])?;
            if let Some(places) = places {
                table.set_extent(label, &places[index])?;
            }
        }
        Ok(())
    })
}

/// Makes another place the EFI system partition, in both copies of the table. Its GUID stays, by which the firmware's boot
/// entries know it. Both the old place and the new one have to hold it whole until this returns.
pub fn set_esp(disk: &dyn Device, place: &Extent) -> Result<()> {
    change_table(disk, |table| table.set_extent(ESP_LABEL, place))
}

/// Changes both copies of the table. One whole copy is on the disk at any time: a damaged one is mended first, with the
/// table as it was. The backup belongs at the disk's end even where the disk has grown: nobody looks for it elsewhere.
fn change_table(disk: &dyn Device, change: impl FnOnce(&mut Table) -> Result<(), ChangeError>) -> Result<()> {
    let (mut table, damage) = read_table(disk)?;
    let sectors = disk.size_bytes().map_err(Failure::io("tell the size of the disk"))? / SECTOR_BYTES as u64;
    if table.sectors != sectors {
        table.resize_disk(sectors).map_err(Failure::io("fit the partition table to the disk"))?;
    }
    let mended = match damage {
        Damage::None => Ok(()),
        Damage::Primary(_) => write_primary(disk, &table),
        Damage::Backup(_) | Damage::Differ => write_backup(disk, &table),
    };
    mended.map_err(Failure::io("mend the partition table"))?;
    let before = table.clone();
    change(&mut table).map_err(Failure::io("change the partition table"))?;
    if table == before && damage == Damage::None {
        return Ok(());
    }
    // What reading would refuse, partitions that overlap for one, is never written.
    Table::read_primary(&table.primary()).map_err(Failure::io("change the partition table"))?;
    write_primary(disk, &table)
        .and_then(|()| write_backup(disk, &table))
        .map_err(Failure::io("write the partition table"))
}

/// The devices of all whole disks in `/sys/class/block`, by their names.
pub fn all() -> Result<Vec<PathBuf>> {
    let folder = fs::read_dir("/sys/class/block").map_err(Failure::io("list /sys/class/block"))?;
    let mut disks = Vec::new();
    for entry in folder.flatten().take(MAX_DISKS) {
        // Partitions are of no use here; loop, ram and device-mapper devices aren't what a host boots from.
        let name = entry.file_name().to_string_lossy().into_owned();
        let virtual_device = ["loop", "ram", "dm-", "zram", "sr", "fd"].iter().any(|prefix| name.starts_with(prefix));
        if !virtual_device && !entry.path().join("partition").exists() {
            disks.push(Path::new("/dev").join(name.replace('!', "/")));
        }
    }
    disks.sort();
    Ok(disks)
}

/// The device of the whole disk whose partition table `holds` accepts.
pub fn find(holds: impl Fn(&Table) -> bool) -> Result<PathBuf> {
    for path in all()? {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A disk in memory.
    pub(crate) struct MemoryDevice(Mutex<Vec<u8>>);

    impl MemoryDevice {
        pub(crate) fn new(bytes: usize) -> Self {
            Self(Mutex::new(vec![0; bytes]))
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().clone()
        }
    }

    impl Device for MemoryDevice {
        fn size_bytes(&self) -> io::Result<u64> {
            Ok(self.0.lock().unwrap().len() as u64)
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            let bytes = self.0.lock().unwrap();
            let from = bytes.get(offset as usize..offset as usize + buffer.len());
            buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
        fn write_at(&self, given: &[u8], offset: u64) -> io::Result<()> {
            let mut bytes = self.0.lock().unwrap();
            let to = bytes.get_mut(offset as usize..offset as usize + given.len());
            to.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(given);
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Ok(())
        }
        fn forget_cache(&self, _: u64, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_running_slot_cannot_be_written_and_all_else_can() {
        use keel_spec::disk::{Identity, Sizes, new_table};
        let identity = Identity { disk: Guid::from_u128(1), esp: Guid::from_u128(2), state: Guid::from_u128(3) };
        let small = Sizes { esp_bytes: 4096, root_bytes: 4096, verity_bytes: 4096, state_bytes: 4096 };
        let table = new_table(&identity, &small, &keel_spec::verity::RootHash::new([7; 32]));
        let disk = MemoryDevice::new(table.sectors as usize * SECTOR_BYTES);
        let fenced = Fenced::new(&disk, &table, Slot::A);
        let at = |label: &str| table.by_name(label).unwrap().offset_bytes();
        for label in ["root-a", "verity-a", "state"] {
            for (offset, length) in
                [(at(label), 1), (at(label) - 1, 2), (at(label) - 1, 2 << 20), (at(label) + 4095, 9)]
            {
                assert!(fenced.write_at(&vec![1; length], offset).is_err(), "{label} {offset}");
            }
        }
        assert!(disk.bytes().iter().all(|byte| *byte == 0));
        for label in ["root-b", "verity-b", "esp"] {
            fenced.write_at(&[1], at(label)).unwrap();
        }
    }
}
