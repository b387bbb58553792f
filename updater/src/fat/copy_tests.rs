use super::*;
use crate::disk::Device;
use crate::disk::tests::MemoryDevice;
use std::io::{Cursor, Read as _, Write as _};

const MIB: u64 = 1 << 20;
/// The old volume is at the start of a disk, the new one behind it.
const OLD_BYTES: u64 = 40 * MIB;

/// A disk whose first 40 MiB `mkfs.vfat` has formatted and `fatfs` filled, both other people's code.
fn disk(cluster_bytes: u32, bytes: u64) -> MemoryDevice {
    let mut volume = vec![0; OLD_BYTES as usize];
    let options = fatfs::FormatVolumeOptions::new()
        .fat_type(fatfs::FatType::Fat32)
        .bytes_per_cluster(cluster_bytes)
        .volume_label(*b"ESP        ");
    fatfs::format_volume(Cursor::new(&mut volume), options).unwrap();
    {
        let fs = fatfs::FileSystem::new(Cursor::new(&mut volume), fatfs::FsOptions::new()).unwrap();
        let root = fs.root_dir();
        for folder in ["EFI", "EFI/Linux", "EFI/BOOT", "loader", "loader/keys", "loader/keys/an other"] {
            root.create_dir(folder).unwrap();
        }
        for (path, length) in files() {
            let content: Vec<u8> = (0..length).map(|at| (at % 251 + path.len()) as u8).collect();
            root.create_file(&path).unwrap().write_all(&content).unwrap();
        }
        root.remove("EFI/Linux/gone.efi").unwrap();
    }
    let device = MemoryDevice::new(bytes as usize);
    device.write_at(&volume, 0).unwrap();
    device
}

fn files() -> Vec<(String, usize)> {
    let mut files: Vec<(String, usize)> = [
        ("keel.toml", 100),
        ("EFI/Linux/gone.efi", 5000),
        ("EFI/BOOT/BOOTX64.EFI", 200_000),
        ("EFI/Linux/keel_1.2.3-rc.1+3-0.efi", 3_000_001),
        ("EFI/Linux/empty.efi", 0),
        ("loader/keys/an other/größer als gedacht.auth", 4096),
    ]
    .map(|(path, length)| (path.to_owned(), length))
    .to_vec();
    files.extend((0..60).map(|number| (format!("loader/entry number {number}.conf"), 10 * number)));
    files
}

/// All files of a volume in memory, told by `fatfs`: path, content, and when it was changed.
fn listed(bytes: Vec<u8>) -> Vec<(String, Vec<u8>, fatfs::DateTime)> {
    let fs = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
    assert_eq!(fs.volume_label(), "ESP");
    let mut folders = vec![(String::new(), fs.root_dir())];
    let mut found = Vec::new();
    while let Some((path, folder)) = folders.pop() {
        for entry in folder.iter().map(Result::unwrap).filter(|entry| !entry.file_name().starts_with('.')) {
            let path = format!("{path}/{}", entry.file_name());
            if entry.is_dir() {
                folders.push((path.clone(), entry.to_dir()));
                found.push((path, Vec::new(), entry.modified()));
            } else {
                let mut content = Vec::new();
                entry.to_file().read_to_end(&mut content).unwrap();
                found.push((path, content, entry.modified()));
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn copied(device: &MemoryDevice, bytes: u64) -> Result<(), FatError> {
    let old = Volume::open(Area::new(device, 0, OLD_BYTES), "EFI/Linux")?;
    copy(&old, &Area::new(device, OLD_BYTES, bytes), OLD_BYTES / SECTOR as u64)
}

#[test]
fn everything_is_there_as_other_programs_see_it() {
    // Clusters of 512 bytes, and, where the volume is large enough for FAT32 then, of 4 KiB.
    for (before, bytes, after) in [(512, 50 * MIB, 512), (512, 300 * MIB, 4096), (512, 120 * MIB, 1024)] {
        let device = disk(before, OLD_BYTES + bytes);
        let old = listed(device.bytes()[..OLD_BYTES as usize].to_vec());
        copied(&device, bytes).unwrap();
        let disk = device.bytes();
        assert_eq!(listed(disk[..OLD_BYTES as usize].to_vec()), old, "the old one has changed");
        let new = disk[OLD_BYTES as usize..].to_vec();
        assert_eq!(usize::from(new[13]) * SECTOR, after);
        let path = std::env::temp_dir().join(format!("keel-updater-copy-{}-{bytes}", std::process::id()));
        std::fs::write(&path, &new).unwrap();
        assert_eq!(listed(new), old);
        assert!(old.len() > 60);
        let checked = std::process::Command::new("/sbin/fsck.fat").arg("-n").arg(&path).output();
        let checked = checked.expect("fsck.fat is missing: install dosfstools (`make deps`)");
        std::fs::remove_file(path).unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }
}

#[test]
fn the_copy_can_be_written_like_any_other() {
    let device = disk(512, OLD_BYTES + 50 * MIB);
    copied(&device, 50 * MIB).unwrap();
    let mut new = Volume::open(Area::new(&device, OLD_BYTES, 50 * MIB), "EFI/Linux").unwrap();
    assert_eq!(new.reclaim().unwrap(), 0);
    let free = new.free_bytes();
    new.create("keel_1.2.4.efi.part", 20 * MIB).unwrap().write_at(&[9; 4096], 0).unwrap();
    new.rename("keel_1.2.4.efi.part", "keel_1.2.4+3.efi").unwrap();
    new.remove("keel_1.2.4+3.efi").unwrap();
    assert_eq!((new.free_bytes(), new.reclaim().unwrap()), (free, 0));
}

#[test]
fn a_file_with_two_names_keeps_both_and_its_clusters_once() {
    let device = disk(512, OLD_BYTES + 50 * MIB);
    {
        let fs = Volume::open(Area::new(&device, 0, OLD_BYTES), "EFI/Linux").unwrap();
        let content = fs.content(&fs.table.chain(&fs.layout, fs.layout.root).unwrap()).unwrap();
        let entry = content.find("keel.toml").unwrap();
        let steps = content.add("another.toml", entry.cluster, entry.length).unwrap().unwrap();
        let root = fs.layout.cluster_offset(fs.layout.root);
        for (sector, bytes) in steps.into_iter().flatten() {
            device.write_at(&bytes, root + (sector * SECTOR) as u64).unwrap();
        }
    }
    copied(&device, 50 * MIB).unwrap();
    let new = Volume::open(Area::new(&device, OLD_BYTES, 50 * MIB), "").unwrap();
    let content = new.content(&new.table.chain(&new.layout, new.layout.root).unwrap()).unwrap();
    let cluster = |name: &str| content.find(name).unwrap().cluster;
    assert_eq!(cluster("keel.toml"), cluster("another.toml"));
}

#[test]
fn what_does_not_fit_or_leads_in_circles_is_refused() {
    let device = disk(512, OLD_BYTES + 40 * MIB);
    {
        let mut old = Volume::open(Area::new(&device, 0, OLD_BYTES), "EFI/Linux").unwrap();
        old.create("large.efi", 33 * MIB).unwrap();
    }
    assert!(matches!(copied(&device, 36 * MIB), Err(FatError::Full(_))));
    assert!(matches!(copied(&device, 20 * MIB), Err(FatError::Format(_))));
    let old = Volume::open(Area::new(&device, 0, OLD_BYTES), "").unwrap();
    let content = old.content(&old.table.chain(&old.layout, old.layout.root).unwrap()).unwrap();
    let folder = content.find("loader").unwrap();
    // Its first file is the folder itself.
    let mut entry = *content.set_of(&folder).last().unwrap();
    entry[..11].copy_from_slice(b"AGAIN      ");
    device.write_at(&entry, old.layout.cluster_offset(folder.cluster) + 2 * ENTRY as u64).unwrap();
    assert!(matches!(copied(&device, 40 * MIB), Err(FatError::Damaged(_))));
}

#[test]
fn whatever_is_changed_on_the_old_volume_it_is_copied_as_it_is_read_or_refused() {
    let device = disk(512, OLD_BYTES + 60 * MIB);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % limit as u64) as usize
    };
    let original = device.bytes()[..OLD_BYTES as usize].to_vec();
    let layout = Layout::read(original[..SECTOR].try_into().unwrap(), OLD_BYTES).unwrap();
    let root = layout.cluster_offset(layout.root) as usize;
    let (mut copies, mut refusals) = (0, 0);
    for round in 0..150 {
        // The boot sector, the part of the table that is in use, the folders at the beginning.
        let (start, length) = [(0, 90), (layout.tables[0] as usize * SECTOR, 400), (root, 6000)][round % 3];
        let places: Vec<usize> = (0..1 + below(3)).map(|_| start + below(length)).collect();
        for place in &places {
            let value = [0, 0xff, 1 << below(8), below(256) as u8][below(4)];
            device.write_at(&[value], *place as u64).unwrap();
        }
        match copied(&device, 60 * MIB) {
            Ok(()) => copies += 1,
            Err(_) => refusals += 1,
        }
        places.iter().for_each(|place| device.write_at(&original[*place..=*place], *place as u64).unwrap());
    }
    assert!(copies > 20 && refusals > 20, "{copies} {refusals}");
}

#[test]
fn many_files_on_the_same_clusters_are_refused() {
    let device = disk(512, OLD_BYTES + 60 * MIB);
    let mut old = Volume::open(Area::new(&device, 0, OLD_BYTES), "EFI/Linux").unwrap();
    old.create("large.efi", 20 * MIB).unwrap();
    (0..8).for_each(|number| drop(old.create(&format!("{number}.efi"), 100 + number).unwrap()));
    let find =
        |at: u32, name: &str| old.content(&old.table.chain(&old.layout, at).unwrap()).unwrap().find(name).unwrap();
    let linux = find(find(old.layout.root, "EFI").cluster, "Linux").cluster;
    let large = find(linux, "large.efi");
    // The small ones get the clusters of the large one, and nearly its length.
    let folder = old.piece(&old.table.chain(&old.layout, linux).unwrap());
    let mut bytes = vec![0; folder.length() as usize];
    folder.read_at(&mut bytes, 0).unwrap();
    for entry in bytes.chunks_mut(ENTRY) {
        let length = u32::from_le_bytes([entry[28], entry[29], entry[30], entry[31]]);
        if entry[11] == 0x20 && (100..108).contains(&length) {
            let mut short: [u8; ENTRY] = (&*entry).try_into().unwrap();
            put_cluster(&mut short, large.cluster);
            short[28..].copy_from_slice(&(large.length - length).to_le_bytes());
            entry.copy_from_slice(&short);
        }
    }
    folder.write_at(&bytes, 0).unwrap();
    let error = copied(&device, 60 * MIB).unwrap_err();
    assert!(error.to_string().contains("are in other files"), "{error}");
}

#[test]
fn a_disk_that_loses_writes_is_found_out() {
    struct Losing(MemoryDevice);
    impl Device for Losing {
        fn size_bytes(&self) -> std::io::Result<u64> {
            self.0.size_bytes()
        }
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
            self.0.read_at(buffer, offset)
        }
        fn write_at(&self, bytes: &[u8], offset: u64) -> std::io::Result<()> {
            if bytes.iter().all(|byte| *byte == 0) || bytes.len() < 100_000 {
                self.0.write_at(bytes, offset)
            } else {
                Ok(())
            }
        }
        fn sync(&self) -> std::io::Result<()> {
            Ok(())
        }
        fn forget_cache(&self, _: u64, _: u64) -> std::io::Result<()> {
            Ok(())
        }
    }
    let device = Losing(disk(512, OLD_BYTES + 50 * MIB));
    let old = Volume::open(Area::new(&device, 0, OLD_BYTES), "EFI/Linux").unwrap();
    let error = copy(&old, &Area::new(&device, OLD_BYTES, 50 * MIB), 1).unwrap_err();
    assert!(error.to_string().contains("isn't what was written"), "{error}");
}
