//! Bundles on disks that are plugged in: found on disks of all kinds, installed from where they lie; and volumes that
//! contradict themselves.

mod support;

use std::fs::File;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use keel_spec::api::ErrorCode;
use keel_spec::bundle::{BLOCK_BYTES, INFO_NAME, header, padding};
use keel_spec::disk::Slot;
use keel_spec::gpt::{Entry, Guid, SECTOR_BYTES, Table};
use keel_updater::bundle::Bundle;
use keel_updater::disk::{self, Fenced};
use keel_updater::install::Installer;
use keel_updater::mirrors::Mirrors;
use keel_updater::pace::Pace;
use keel_updater::plugged::{Findings, look_at};
use keel_updater::source::Source;
use support::checker::Disk;
use support::{MIB, Memory, Recorder, image, make, open_esp, plan};

const VOLUME_BYTES: u64 = 34 * MIB;

/// A bundle with the files of a repository; its metadata are none.
fn bundle(version: &str, memory: &Memory) -> Vec<u8> {
    let info = format!("{{\"version\":\"{version}\",\"profile\":\"cloud\"}}").into_bytes();
    let of =
        |(path, bytes): (&String, &Vec<u8>)| (format!("targets/{}", path.split_once('.').unwrap().1), bytes.clone());
    let mut files: Vec<(String, Vec<u8>)> = memory.files.iter().map(of).collect();
    files.sort();
    files.insert(0, (INFO_NAME.to_owned(), info));
    let mut bytes = Vec::new();
    for (name, content) in files {
        let length = content.len() as u64;
        bytes.extend(header(&name, length).unwrap());
        bytes.extend(content);
        bytes.resize(bytes.len() + padding(length) as usize, 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    bytes
}

fn small(version: &str) -> Vec<u8> {
    bundle(version, &Memory::default())
}

/// A FAT32 volume with these files in its top folder, each in many pieces.
fn volume(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut volume = vec![0; VOLUME_BYTES as usize];
    let options =
        FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512).volume_label(*b"STICK      ");
    fatfs::format_volume(Cursor::new(&mut volume), options).unwrap();
    let fs = FileSystem::new(Cursor::new(&mut volume), FsOptions::new()).unwrap();
    for (name, content) in files {
        let (mut file, mut between) =
            (fs.root_dir().create_file(name).unwrap(), fs.root_dir().create_file("between the pieces.txt").unwrap());
        for piece in content.chunks(3000) {
            file.write_all(piece).unwrap();
            between.write_all(&[7; 700]).unwrap();
        }
    }
    fs.unmount().unwrap();
    volume
}

/// A disk of a file's name, ended with the test.
struct Stick(PathBuf);

impl Stick {
    fn new(name: &str, pieces: &[(u64, &[u8])], size: u64) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("keel-updater-plugged-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name);
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        pieces.iter().for_each(|(offset, bytes)| file.write_all_at(bytes, *offset).unwrap());
        Self(path)
    }

    fn look(&self) -> Findings {
        let mut findings = Findings::default();
        look_at(&self.0, &mut findings);
        findings
    }
}

impl Drop for Stick {
    fn drop(&mut self) {
        std::fs::remove_dir_all(self.0.parent().unwrap()).unwrap();
    }
}

fn mbr(partitions: &[(u8, u64, u64)]) -> Vec<u8> {
    let mut sector = vec![0; SECTOR_BYTES];
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    for (entry, (kind, offset, length)) in sector[446..510].chunks_exact_mut(16).zip(partitions) {
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&((offset / 512) as u32).to_le_bytes());
        entry[12..].copy_from_slice(&((length / 512) as u32).to_le_bytes());
    }
    sector
}

fn names(findings: &Findings) -> Vec<(&str, u64)> {
    findings.bundles.iter().map(|found| (found.bundle.name.as_str(), found.bundle.size_bytes)).collect()
}

#[test]
fn bundles_are_found_on_disks_of_every_kind() {
    let (content, length) = (small("1.1.0"), small("1.1.0").len() as u64);
    let raw = Stick::new("sdb", &[(0, &content)], 10 * MIB);
    assert_eq!(names(&raw.look()), [("sdb", length)]);

    let name = "Keel 1.1.0 für alle (Kopie).BUNDLE";
    let files = volume(&[("._keel.bundle", b"x"), (name, &content), ("notes.txt", b"x")]);
    let bare = Stick::new("sdc", &[(0, &files)], VOLUME_BYTES);
    assert_eq!(names(&bare.look()), [(format!("sdc/{name}").as_str(), length)]);

    let parts = mbr(&[(0x83, 50 * MIB, MIB), (0x0c, MIB, VOLUME_BYTES)]);
    let partitioned = Stick::new("nvme1n1", &[(0, &parts), (MIB, &files), (50 * MIB, &content)], 60 * MIB);
    let found = partitioned.look();
    assert_eq!(names(&found), [("nvme1n1p1", length), (format!("nvme1n1p2/{name}").as_str(), length)]);
    for wanted in ["nvme1n1p2", name, "/dev/nvme1n1p2", &format!("nvme1n1p2/{name}")] {
        assert_eq!(found.the_one(wanted).unwrap().size, Some(length), "{wanted}");
    }
    for (wanted, word) in [("", "name one"), ("nvme1n1", "nvme1n1p1, nvme1n1p2/")] {
        let several = found.the_one(wanted).unwrap_err();
        assert!(several.code == ErrorCode::Conflict && several.message.contains(word), "{several}");
    }

    let mut table = Table::new(Guid::from_u128(5), 60 * MIB / 512);
    let (first_lba, last_lba) = (2048, 2047 + VOLUME_BYTES / 512);
    let (kind, unique) = (Guid::from_u128(6), Guid::from_u128(7));
    table.entries.push(Entry { number: 3, kind, unique, first_lba, last_lba, attributes: 0, name: "".into() });
    let gpt = Stick::new("sdd", &[(0, &table.primary()), (MIB, &files)], 60 * MIB);
    assert_eq!(names(&gpt.look()), [(format!("sdd3/{name}").as_str(), length)]);
    assert_eq!(gpt.look().the_one("").unwrap().bundle.version, "1.1.0".parse().unwrap());
}

#[test]
fn names_that_would_move_a_terminals_cursor_are_shown_without_that() {
    let content = small("1.1.0");
    let mut files = volume(&[("abcdefghijkl.bundle", &content)]);
    let units: Vec<u8> = "fgh".encode_utf16().flat_map(u16::to_le_bytes).collect();
    // In the entry of a long name there are two bytes more after the fifth unit; these are after it.
    let at = files.windows(units.len()).position(|window| window == units).unwrap();
    files[at + 2] = 0x1b;
    let stick = Stick::new("sdb", &[(0, &files)], VOLUME_BYTES);
    assert_eq!(names(&stick.look()), [("sdb/abcdef?hijkl.bundle", content.len() as u64)]);
}

#[test]
fn where_nothing_is_found_it_is_said_where_it_was_looked_for() {
    let refused = |stick: &Stick, name: &str| {
        let failure = stick.look().the_one(name).map(|_| ()).unwrap_err();
        assert_eq!(failure.code, ErrorCode::NotFound, "{failure}");
        failure.message
    };
    let none = Findings::default().the_one("").map(|_| ()).unwrap_err();
    assert!(none.message.contains("no disk is plugged in"), "{none}");
    assert!(refused(&Stick::new("sdb", &[], 0), "").contains("sdb: has no medium"));
    assert!(refused(&Stick::new("sdb", &[], MIB), "").contains("sdb: neither a bundle nor a FAT32 volume"));
    let empty = Stick::new("sdb", &[(0, &volume(&[("a.txt", b"")]))], VOLUME_BYTES);
    assert!(refused(&empty, "").contains("a FAT32 volume without a *.bundle"));
    let content = small("1.1.0");
    let cut = Stick::new("sdb", &[(0, &volume(&[("cut.bundle", &content[..content.len() - 512])]))], VOLUME_BYTES);
    assert!(refused(&cut, "").contains("sdb/cut.bundle is cut off"), "{}", refused(&cut, ""));
    let other = Stick::new("sdb", &[(0, &content)], MIB);
    assert!(refused(&other, "sdz").contains("no bundle \"sdz\" was found; there is sdb"));
    let mut fat16 = vec![0; 16 << 20];
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat16);
    fatfs::format_volume(Cursor::new(&mut fat16), options).unwrap();
    assert!(refused(&Stick::new("sdb", &[(0, &fat16)], 16 << 20), "").contains("FAT16"));
}

#[test]
fn an_install_takes_its_blocks_from_where_the_bundle_lies_and_writes_nothing_there() {
    let running = make("1.0.0", 300, 2, |block| block);
    let new = make("1.1.0", 300, 2, |block| if block < 100 { block + 50 } else { block + 9000 });
    let (memory, recorder) = (Memory::of(&new), Recorder::new(image(&running, None)));
    let files = volume(&[("keel-1.1.0.bundle", &bundle("1.1.0", &memory))]);
    let stick = Stick::new("sdb", &[(0, &mbr(&[(0x0c, MIB, VOLUME_BYTES)])), (MIB, &files)], 40 * MIB);
    let before = std::fs::read(&stick.0).unwrap();
    let findings = stick.look();
    let found = findings.the_one("").unwrap();
    assert!(found.pieces.len() > 100, "it was to lie in pieces");
    let file = found.open().unwrap();
    let bundle = Bundle::open(&file, "", found.size).unwrap();
    let plan = plan(&recorder, &running, &memory, &new.release, false).unwrap();
    let mirrors = Mirrors::new([&bundle as &dyn Source], Pace::default());
    let table = disk::read_table(&recorder).unwrap().0;
    let fenced = Fenced::new(&recorder, &table, Slot::A);
    let mut esp = open_esp(&recorder);
    Installer { mirrors: &mirrors, disk: &fenced, esp: &mut esp }.run(&plan, &mut |_, _, _| ()).unwrap();
    let mut disk = Disk::new(recorder.image.lock().unwrap().clone(), &[&running, &new]);
    assert_eq!(disk.boots().unwrap().to_string(), "1.1.0");
    assert!(std::fs::read(&stick.0).unwrap() == before, "the stick was written to");
}

#[test]
fn volumes_that_contradict_themselves_end_in_words() {
    let whole = volume(&[("keel.bundle", &small("1.1.0"))]);
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([whole[at], whole[at + 1]]));
    let fat = u16_at(14) * SECTOR_BYTES;
    let entry = |cluster: usize| fat + 4 * cluster;
    let looked = |changes: &[(usize, &[u8])]| {
        let mut bytes = whole.clone();
        changes.iter().for_each(|(at, new)| bytes[*at..at + new.len()].copy_from_slice(new));
        let findings = Stick::new("sdb", &[(0, &bytes)], VOLUME_BYTES).look();
        assert!(findings.bundles.is_empty(), "{findings:?}");
        findings.looked.iter().map(|place| place.found.clone()).collect::<String>()
    };
    // The top folder's chain goes round in circles, and out of the volume.
    assert!(looked(&[(entry(2), &2u32.to_le_bytes())]).contains("lead nowhere"));
    assert!(looked(&[(entry(2), &0x0fff_0000u32.to_le_bytes())]).contains("lead nowhere"));
    // The file's.
    let folder = whole
        .windows(11)
        .position(|it| it == b"KEEL~1  BUN")
        .or_else(|| whole.windows(11).position(|it| it.starts_with(b"KEEL") && it.ends_with(b"BUN")));
    let first = folder.map(|at| u16_at(at + 26)).unwrap();
    assert!(looked(&[(entry(first), &(first as u32).to_le_bytes())]).contains("lead nowhere"));
    assert!(looked(&[(entry(first), &0x0fff_ffffu32.to_le_bytes())]).contains("longer than its clusters"));
    // A file that says to be longer than it is.
    assert!(looked(&[(folder.unwrap() + 28, &0xffff_fff0u32.to_le_bytes())]).contains("longer than its clusters"));
    // More clusters than the disk has sectors.
    assert!(looked(&[(32, &0xffff_ffffu32.to_le_bytes())]).contains("larger than its partition"));
}
