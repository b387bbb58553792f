//! A machine in memory: a whole disk with a partition table, two slots and an EFI system partition, on which every
//! write is recorded; releases made of small numbers of blocks; and a repository that misbehaves where told to.
#![allow(dead_code)] // Each test program uses a part of it.

pub mod checker;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Cursor, Write as _};
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use keel_spec::blocks::BlockList;
use keel_spec::cmdline::BootParameters;
use keel_spec::disk::{Identity, Sizes, Slot, new_table, root_guid, verity_guid};
use keel_spec::gpt::{BACKUP_SECTORS, Guid, PRIMARY_SECTORS, SECTOR_BYTES, Table};
use keel_spec::release::{Release, ReleaseFile, UkiName};
use keel_spec::tuf::TargetFile;
use keel_spec::verity::{BLOCK_BYTES, Builder};
use keel_updater::blocks::sha256;
use keel_updater::disk::{self, Device, Fenced};
use keel_updater::esp::Esp;
use keel_updater::failure::Result;
use keel_updater::install::Installer;
use keel_updater::mirrors::Mirrors;
use keel_updater::pace::Pace;
use keel_updater::plan::{Facts, Plan, decide};
use keel_updater::source::{Opened, Source};

pub const MIB: u64 = 1 << 20;

/// A release made of blocks that each hold one number.
pub struct Made {
    pub release: Release,
    pub root: Vec<u8>,
    pub tree: Vec<u8>,
    pub uki: Vec<u8>,
    pub list: Vec<u8>,
}

/// A release whose root blocks hold these numbers, and whose UKI has blocks of `kernel`.
pub fn make(version: &str, blocks: u64, kernel: u8, number: impl Fn(u64) -> u64) -> Made {
    let mut builder = Builder::new(blocks, sha256).unwrap();
    let mut root = Vec::new();
    for block in 0..blocks {
        let mut bytes = [0; BLOCK_BYTES];
        bytes[..8].copy_from_slice(&number(block).to_le_bytes());
        builder.feed(&bytes).unwrap();
        root.extend(bytes);
    }
    let (tree, root_hash) = builder.finish().unwrap();
    let cmdline = BootParameters { root_hash, root_blocks: blocks, watchdog_s: 30, trial_s: 180 }.render();
    let mut uki = keel_updater::uki::minimal(&cmdline);
    uki.resize(BLOCK_BYTES, 0);
    // Ten blocks of kernel, and a last one that isn't full.
    (0..10u8).for_each(|block| uki.extend([kernel, block].repeat(BLOCK_BYTES / 2)));
    uki.extend([kernel; 1000]);
    let list = BlockList::of(&uki, &sha256).to_bytes();
    let release = Release {
        version: version.parse().unwrap(),
        profile: "cloud".into(),
        built_unix_s: 0,
        root_hash,
        root_blocks: blocks,
        tree_bytes: tree.len() as u64,
        uki_bytes: uki.len() as u64,
        uki_blocks_bytes: Some(list.len() as u64),
        follows_at_least: None,
    };
    Made { release, root, tree, uki, list }
}

/// A repository in memory.
#[derive(Default)]
pub struct Memory {
    pub files: HashMap<String, Vec<u8>>,
    pub targets: BTreeMap<String, TargetFile>,
    /// Most ranges that it honours in one request.
    pub most_ranges: usize,
    pub requests: AtomicU64,
    pub served: AtomicU64,
    /// Streams end after so many bytes, this many times.
    pub cut_after: u64,
    pub cuts: AtomicI64,
}

impl Memory {
    pub fn of(made: &Made) -> Self {
        let mut memory = Self { most_ranges: 99, ..Self::default() };
        let parts = [
            (ReleaseFile::Root, &made.root),
            (ReleaseFile::Tree, &made.tree),
            (ReleaseFile::Uki, &made.uki),
            (ReleaseFile::UkiBlocks, &made.list),
        ];
        for (file, bytes) in parts {
            let name = file.target_name("cloud", &made.release.version);
            let sha256 = keel_updater::tuf::keys::to_hex(&sha256(&[bytes]));
            memory.files.insert(format!("targets/{sha256}.{name}"), bytes.clone());
            let hashes = BTreeMap::from([("sha256".into(), sha256)]);
            memory.targets.insert(name, TargetFile { length: bytes.len() as u64, hashes, custom: None });
        }
        memory
    }

    pub fn corrupt(&mut self, suffix: &str, at: usize) {
        let file = self.files.iter_mut().find(|(name, _)| name.ends_with(suffix)).unwrap();
        file.1[at] ^= 1;
    }

    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Source for Memory {
    fn name(&self) -> String {
        "memory".into()
    }

    fn open(&self, path: &str, ranges: &[Range<u64>], _: u64) -> io::Result<Option<Opened>> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let Some(bytes) = self.files.get(path) else { return Ok(None) };
        let ranged = !ranges.is_empty() && ranges.len() <= self.most_ranges;
        let mut body = match ranged {
            true => ranges.iter().flat_map(|it| bytes[it.start as usize..it.end as usize].iter().copied()).collect(),
            false => bytes.clone(),
        };
        if ranges.is_empty() || ranged {
            self.served.fetch_add(body.len() as u64, Ordering::Relaxed);
        }
        if self.cuts.fetch_sub(1, Ordering::Relaxed) > 0 {
            body.truncate(self.cut_after as usize);
        }
        Ok(Some(Opened { ranged, body: Box::new(Cursor::new(body)) }))
    }
}

/// What happened to a disk.
#[derive(Clone)]
pub enum Op {
    Write(u64, Vec<u8>),
    Sync,
}

/// A disk in memory that remembers what was done to it. After `power` writes and syncs, nothing works any more.
pub struct Recorder {
    pub image: Mutex<Vec<u8>>,
    pub log: Mutex<Vec<Op>>,
    pub power: AtomicI64,
}

impl Recorder {
    pub fn new(image: Vec<u8>) -> Self {
        Self { image: image.into(), log: Mutex::default(), power: i64::MAX.into() }
    }

    pub fn take_log(&self) -> Vec<Op> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn use_power(&self) -> io::Result<()> {
        match self.power.fetch_sub(1, Ordering::Relaxed) {
            left if left > 0 => Ok(()),
            _ => Err(io::Error::other("power cut")),
        }
    }
}

impl Device for Recorder {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(self.image.lock().unwrap().len() as u64)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let image = self.image.lock().unwrap();
        let from = image.get(offset as usize..offset as usize + buffer.len());
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.use_power()?;
        let mut image = self.image.lock().unwrap();
        let to = image.get_mut(offset as usize..offset as usize + bytes.len());
        to.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        // The kernel writes whole sectors.
        let first = offset as usize / SECTOR_BYTES * SECTOR_BYTES;
        let end = (offset as usize + bytes.len()).next_multiple_of(SECTOR_BYTES);
        self.log.lock().unwrap().push(Op::Write(first as u64, image[first..end].to_vec()));
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        self.use_power()?;
        self.log.lock().unwrap().push(Op::Sync);
        Ok(())
    }
    fn forget_cache(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// The image of a disk with `a` in slot a, and perhaps `b` in slot b, all known to be good.
pub fn image(a: &Made, b: Option<&Made>) -> Vec<u8> {
    let identity = Identity { disk: Guid::from_u128(1), esp: Guid::from_u128(2), state: Guid::from_u128(3) };
    let sizes = Sizes { esp_bytes: 34 * MIB, root_bytes: 2 * MIB, verity_bytes: MIB, state_bytes: MIB };
    let mut table = new_table(&identity, &sizes, &a.release.root_hash);
    if let Some(b) = b {
        table.set_unique("root-b", root_guid(&b.release.root_hash)).unwrap();
        table.set_unique("verity-b", verity_guid(&b.release.root_hash)).unwrap();
    }
    let mut image = vec![0; table.sectors as usize * SECTOR_BYTES];
    let mut put = |bytes: &[u8], offset: u64| image[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    put(&table.primary(), 0);
    put(&table.backup(), table.backup_lba() * SECTOR_BYTES as u64);
    for (made, slot) in [(Some(a), Slot::A), (b, Slot::B)] {
        let Some(made) = made else { continue };
        put(&made.root, table.by_name(slot.root_label()).unwrap().offset_bytes());
        put(&made.tree, table.by_name(slot.verity_label()).unwrap().offset_bytes());
    }
    let esp = table.by_name("esp").unwrap();
    let place = esp.offset_bytes() as usize..(esp.offset_bytes() + esp.size_bytes()) as usize;
    format(&mut image[place], [Some(a), b].into_iter().flatten());
    image
}

/// The same disk with so much free space behind all that is on it.
pub fn with_free_space(mut image: Vec<u8>, bytes: u64) -> Vec<u8> {
    image.resize(image.len() + bytes as usize, 0);
    let mut table = Table::read_primary(&image).unwrap();
    table.resize_disk((image.len() / SECTOR_BYTES) as u64).unwrap();
    image[..PRIMARY_SECTORS as usize * SECTOR_BYTES].copy_from_slice(&table.primary());
    let backup = table.backup_lba() as usize * SECTOR_BYTES;
    image[backup..].copy_from_slice(&table.backup());
    image
}

/// Leaves so few free clusters on the EFI system partition; the others are marked as bad, so that nothing is in them.
pub fn fill_esp(image: &mut [u8], free_clusters: usize) {
    let (offset, length) = esp_place(image);
    let volume = &mut image[offset as usize..(offset + length) as usize];
    let reserved = usize::from(u16::from_le_bytes([volume[14], volume[15]])) * SECTOR_BYTES;
    let table_bytes = u32::from_le_bytes([volume[36], volume[37], volume[38], volume[39]]) as usize * SECTOR_BYTES;
    let sectors = u32::from_le_bytes([volume[32], volume[33], volume[34], volume[35]]) as usize;
    let clusters = sectors - (reserved + 2 * table_bytes) / SECTOR_BYTES;
    let free = |volume: &[u8], cluster: &usize| volume[reserved + cluster * 4..][..4] == [0; 4];
    let all: Vec<usize> = (2..clusters + 2).filter(|cluster| free(volume, cluster)).collect();
    for cluster in &all[free_clusters..] {
        for table in [reserved, reserved + table_bytes] {
            volume[table + cluster * 4..][..4].copy_from_slice(&[0xf7, 0xff, 0xff, 0x0f]);
        }
    }
}

fn format<'a>(volume: &mut [u8], releases: impl Iterator<Item = &'a Made>) {
    let options = FormatVolumeOptions::new().fat_type(FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(Cursor::new(&mut *volume), options).unwrap();
    let fs = FileSystem::new(Cursor::new(volume), FsOptions::new()).unwrap();
    fs.root_dir().create_dir("EFI").unwrap();
    fs.root_dir().create_dir("EFI/Linux").unwrap();
    // What else is there isn't ours to touch.
    fs.root_dir().create_file("keel.toml").unwrap().write_all(&[b'#'; 3000]).unwrap();
    for made in releases {
        let path = format!("EFI/Linux/{}", UkiName::good(made.release.version.clone()));
        fs.root_dir().create_file(&path).unwrap().write_all(&made.uki).unwrap();
    }
    fs.unmount().unwrap();
}

/// Where the EFI system partition is: offset and length in bytes.
pub fn esp_place(image: &[u8]) -> (u64, u64) {
    let backup = &image[image.len() - BACKUP_SECTORS as usize * SECTOR_BYTES..];
    let (table, _) = Table::read(&image[..PRIMARY_SECTORS as usize * SECTOR_BYTES], backup).unwrap();
    let esp = table.by_name("esp").unwrap();
    (esp.offset_bytes(), esp.size_bytes())
}

/// Does something to the files of the EFI system partition as firmware would, by other code than ours.
pub fn as_firmware(image: &mut [u8], act: impl FnOnce(fatfs::Dir<'_, Cursor<&mut [u8]>>)) {
    let (offset, length) = esp_place(image);
    let volume = &mut image[offset as usize..(offset + length) as usize];
    let fs = FileSystem::new(Cursor::new(volume), FsOptions::new()).unwrap();
    act(fs.root_dir().open_dir("EFI/Linux").unwrap());
    fs.unmount().unwrap();
}

/// Opens the EFI system partition.
pub fn open_esp(recorder: &Recorder) -> Esp<'_> {
    let (offset, length) = esp_place(&recorder.image.lock().unwrap());
    Esp::open(recorder, offset, length).unwrap()
}

/// What an install is planned from, on a machine that runs `running`.
pub fn plan(recorder: &Recorder, running: &Made, source: &Memory, new: &Release, resume: bool) -> Result<Plan> {
    let (table, _) = disk::read_table(recorder)?;
    let mut esp = open_esp(recorder);
    esp.reclaim().map_err(keel_updater::failure::Failure::io("reclaim"))?;
    decide(&Facts {
        release: new,
        targets: &source.targets,
        table: &table,
        running_root: &running.release.root_hash,
        running: &running.release.version,
        on_trial: false,
        ukis: &esp.ukis().unwrap(),
        esp_free_bytes: esp.free_bytes(),
        tries: 3,
        resume,
        disk_bytes: recorder.size_bytes().unwrap(),
        battery_percent: None,
    })
}

/// Plans an install and carries it out.
pub fn install_from(
    recorder: &Recorder,
    running: &Made,
    sources: &[&Memory],
    new: &Release,
    resume: bool,
) -> Result<u64> {
    carry_out(recorder, running, sources, new, resume, |mut installer, plan| installer.run(plan, &mut |_, _, _| ()))
}

/// Plans an install and writes everything but what makes the boot loader offer it.
pub fn write_ahead(recorder: &Recorder, running: &Made, source: &Memory, new: &Release, resume: bool) -> Result<u64> {
    carry_out(recorder, running, &[source], new, resume, |mut installer, plan| match plan {
        Plan::Write(write) => installer.write_ahead(write, &mut |_, _, _| ()),
        Plan::Offer { .. } => panic!("it is there already"),
    })
}

fn carry_out(
    recorder: &Recorder,
    running: &Made,
    sources: &[&Memory],
    new: &Release,
    resume: bool,
    act: impl FnOnce(Installer, &Plan) -> Result<()>,
) -> Result<u64> {
    let plan = plan(recorder, running, sources.last().unwrap(), new, resume)?;
    let mirrors = Mirrors::new(sources.iter().map(|memory| *memory as &dyn Source), Pace::default());
    let table = disk::read_table(recorder)?.0;
    let slot = Slot::holding(&table, &running.release.root_hash).unwrap();
    let fenced = Fenced::new(recorder, &table, slot);
    let mut esp = open_esp(recorder);
    act(Installer { mirrors: &mirrors, disk: &fenced, esp: &mut esp }, &plan)?;
    Ok(mirrors.fetched_bytes())
}
