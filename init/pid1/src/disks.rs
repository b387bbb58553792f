//! Partitions, found by what the partition tables say: the root by its hash, the state by its label.
//!
//! The tables are read from the disks themselves; the kernel's uevents don't tell GUIDs before Linux 6.13 or so.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use keel_spec::disk;
use keel_spec::gpt::{BACKUP_SECTORS, Entry, PRIMARY_SECTORS, SECTOR_BYTES, Table};
use keel_spec::verity::RootHash;

/// Most disks that are looked at.
const MAX_DISKS: usize = 256;

/// A disk and its partitions.
pub struct Disk {
    /// Name in `/sys/block`.
    pub name: String,
    table: Table,
}

/// The partitions of the root with a certain hash.
pub struct RootPartitions {
    /// Name of the disk that they are on.
    pub disk: String,
    /// Device of the data.
    pub data: PathBuf,
    /// Device of the hash tree.
    pub tree: PathBuf,
}

impl Disk {
    /// Reads a disk's partition table; `None` if it has none that is whole.
    pub fn read(name: &str) -> Option<Self> {
        let device = File::open(Path::new("/dev").join(name)).ok()?;
        let sectors: u64 = fs::read_to_string(format!("/sys/block/{name}/size")).ok()?.trim().parse().ok()?;
        let read = |from: u64, count: u64| {
            let mut bytes = vec![0; usize::try_from(count).unwrap_or(0).saturating_mul(SECTOR_BYTES)];
            match device.read_exact_at(&mut bytes, from.saturating_mul(SECTOR_BYTES as u64)) {
                Ok(()) => bytes,
                Err(_) => Vec::new(),
            }
        };
        let backup_at = sectors.checked_sub(BACKUP_SECTORS)?;
        let (table, _) = Table::read(&read(0, PRIMARY_SECTORS), &read(backup_at, BACKUP_SECTORS)).ok()?;
        Some(Self { name: name.to_owned(), table })
    }

    /// The device of the partition with this label.
    pub fn labelled(&self, label: &str) -> Option<PathBuf> {
        self.device(self.table.by_name(label)?)
    }

    /// The kernel's device of a partition, by its number.
    fn device(&self, entry: &Entry) -> Option<PathBuf> {
        let folder = Path::new("/sys/block").join(&self.name);
        let number = entry.number.to_string();
        let partition = fs::read_dir(folder)
            .ok()?
            .flatten()
            .find(|child| fs::read_to_string(child.path().join("partition")).is_ok_and(|text| text.trim() == number))?;
        let device = Path::new("/dev").join(partition.file_name());
        device.exists().then_some(device)
    }
}

/// Names of all disks; not of loop, RAM and device-mapper devices, which are made from disks or files.
pub fn names() -> Vec<String> {
    let made = ["loop", "ram", "zram", "dm-", "md", "nbd"];
    let mut names: Vec<String> = fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !made.iter().any(|prefix| name.starts_with(prefix)))
        .take(MAX_DISKS)
        .collect();
    names.sort();
    names
}

/// Finds the two partitions of a root by its hash. They have to be on one disk.
pub fn find_root(root_hash: &RootHash) -> Option<RootPartitions> {
    names().into_iter().find_map(|name| {
        let disk = Disk::read(&name)?;
        let data = disk.device(disk.table.by_unique(disk::root_guid(root_hash))?)?;
        let tree = disk.device(disk.table.by_unique(disk::verity_guid(root_hash))?)?;
        Some(RootPartitions { disk: name, data, tree })
    })
}

/// `major:minor` of a block device, as device-mapper wants it.
pub fn device_number(path: &Path) -> std::io::Result<String> {
    let device = fs::metadata(path)?.rdev();
    Ok(format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}
