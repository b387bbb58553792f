use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Cursor;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use keel_spec::cmdline::BootParameters;
use keel_spec::disk::{Identity, Sizes, Slot, new_table};
use keel_spec::gpt::{Guid, SECTOR_BYTES};
use keel_spec::release::{Release, ReleaseFile, UkiName};
use keel_spec::tuf::TargetFile;
use keel_spec::verity::{Builder, RootHash};

use super::*;
use crate::disk::FileDevice;
use crate::esp::{Folder, Uki};
use crate::plan::{Facts, decide};
use crate::source::Opened;

const BLOCKS: u64 = 300;
const MIB: u64 = 1 << 20;

/// A release made of blocks that each hold one number.
struct Made {
    release: Release,
    root: Vec<u8>,
    tree: Vec<u8>,
    uki: Vec<u8>,
}

fn make(version: &str, number: impl Fn(u64) -> u64) -> Made {
    let mut builder = Builder::new(BLOCKS, blocks::sha256).unwrap();
    let mut root = Vec::new();
    for block in 0..BLOCKS {
        let mut bytes = [0; BLOCK_BYTES];
        bytes[..8].copy_from_slice(&number(block).to_le_bytes());
        builder.feed(&bytes).unwrap();
        root.extend(bytes);
    }
    let (tree, root_hash) = builder.finish().unwrap();
    let cmdline = BootParameters { root_hash, root_blocks: BLOCKS, watchdog_s: 30, trial_s: 180 }.render();
    let uki = crate::uki::minimal(&cmdline);
    let release = Release {
        version: version.parse().unwrap(),
        profile: "cloud".into(),
        built_unix_s: 0,
        root_hash,
        root_blocks: BLOCKS,
        tree_bytes: tree.len() as u64,
        uki_bytes: uki.len() as u64,
        follows_at_least: None,
    };
    Made { release, root, tree, uki }
}

/// A repository in memory.
#[derive(Default)]
struct Memory {
    files: HashMap<String, Vec<u8>>,
    targets: BTreeMap<String, TargetFile>,
    without_ranges: bool,
    served: AtomicU64,
    /// Streams end with an error after so many bytes, this many times.
    cut_after: u64,
    cuts: AtomicI64,
}

impl Memory {
    fn of(made: &Made) -> Self {
        let mut memory = Self::default();
        let parts = [(ReleaseFile::Root, &made.root), (ReleaseFile::Tree, &made.tree), (ReleaseFile::Uki, &made.uki)];
        for (file, bytes) in parts {
            let name = file.target_name("cloud", &made.release.version);
            let sha256 = crate::tuf::keys::sha256_hex(bytes);
            memory.files.insert(format!("targets/{sha256}.{name}"), bytes.clone());
            let hashes = BTreeMap::from([("sha256".into(), sha256)]);
            memory.targets.insert(name, TargetFile { length: bytes.len() as u64, hashes, custom: None });
        }
        memory
    }

    fn corrupt(&mut self, suffix: &str, at: usize) {
        let file = self.files.iter_mut().find(|(name, _)| name.ends_with(suffix)).unwrap();
        file.1[at] ^= 1;
    }
}

impl Source for Memory {
    fn name(&self) -> String {
        "memory".into()
    }

    fn open(&self, path: &str, range: Option<Range<u64>>, _: u64) -> io::Result<Option<Opened>> {
        let Some(bytes) = self.files.get(path) else { return Ok(None) };
        let ranged = range.is_some() && !self.without_ranges;
        let bytes = match range {
            Some(range) if ranged => &bytes[range.start as usize..range.end as usize],
            _ => bytes,
        };
        self.served.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let cut = self.cuts.fetch_sub(1, Ordering::Relaxed) > 0;
        let end = if cut { self.cut_after.min(bytes.len() as u64) as usize } else { bytes.len() };
        Ok(Some(Opened { ranged, body: Box::new(Cursor::new(bytes[..end].to_vec())) }))
    }
}

/// Power that fails at the n-th write, rename, removal or sync: a write is then torn, and nothing works any more.
#[derive(Clone)]
struct Power(Arc<AtomicI64>);

impl Power {
    fn use_once(&self) -> io::Result<()> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            left if left > 0 => Ok(()),
            _ => Err(io::Error::other("power cut")),
        }
    }
}

struct CutDevice(FileDevice, Power);

impl Device for CutDevice {
    fn size_bytes(&self) -> io::Result<u64> {
        self.0.size_bytes()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(buffer, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // The write during which power fails is torn; later ones don't happen.
        let left = self.1.0.load(Ordering::Relaxed);
        if left == 0 {
            self.0.write_at(&bytes[..bytes.len() / 2 / SECTOR_BYTES * SECTOR_BYTES], offset)?;
        }
        self.1.use_once()?;
        self.0.write_at(bytes, offset)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.use_once()?;
        self.0.sync()
    }
    fn forget_cache(&self, offset: u64, length: u64) -> io::Result<()> {
        self.0.forget_cache(offset, length)
    }
}

struct CutEsp(Folder, Power);

struct CutFile(Box<dyn io::Write>, Power);

impl io::Write for CutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.0.load(Ordering::Relaxed) == 0 {
            self.0.write_all(&bytes[..bytes.len() / 2])?;
        }
        self.1.use_once()?;
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Esp for CutEsp {
    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }
    fn size_bytes(&self, name: &str) -> io::Result<u64> {
        self.0.size_bytes(name)
    }
    fn open(&self, name: &str) -> io::Result<File> {
        self.0.open(name)
    }
    fn free_bytes(&self) -> io::Result<u64> {
        Ok(64 * MIB)
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn io::Write>> {
        self.1.use_once()?;
        Ok(Box::new(CutFile(self.0.create(name)?, self.1.clone())))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.1.use_once()?;
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.1.use_once()?;
        self.0.remove(name)
    }
    fn sync(&self) -> io::Result<()> {
        self.1.use_once()?;
        self.0.sync()
    }
}

/// A machine with 1.0.0 in slot a, running, and 0.9.0 in slot b.
struct Machine {
    folder: PathBuf,
    disk: CutDevice,
    esp: CutEsp,
    old: Made,
    running: Made,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn machine(power: i64) -> Machine {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("keel-updater-install-{}-{number}", std::process::id()));
    std::fs::create_dir_all(folder.join("esp").join(UkiName::FOLDER)).unwrap();
    let (old, running) = (make("0.9.0", |block| block + 5000), make("1.0.0", |block| block));
    let identity = Identity { disk: Guid::from_u128(1), esp: Guid::from_u128(2), state: Guid::from_u128(3) };
    let sizes = Sizes { esp_bytes: MIB, root_bytes: 2 * MIB, verity_bytes: MIB, state_bytes: MIB };
    let mut table = new_table(&identity, &sizes, &running.release.root_hash);
    table.set_unique("root-b", root_guid(&old.release.root_hash)).unwrap();
    table.set_unique("verity-b", verity_guid(&old.release.root_hash)).unwrap();
    let path = folder.join("disk");
    let file = File::create(&path).unwrap();
    file.set_len(table.sectors * SECTOR_BYTES as u64).unwrap();
    let device = FileDevice::open(&path).unwrap();
    device.write_at(&table.primary(), 0).unwrap();
    device.write_at(&table.backup(), table.backup_lba() * SECTOR_BYTES as u64).unwrap();
    let esp = Folder::open(&folder.join("esp")).unwrap();
    for (made, slot) in [(&running, Slot::A), (&old, Slot::B)] {
        device.write_at(&made.root, table.by_name(slot.root_label()).unwrap().offset_bytes()).unwrap();
        device.write_at(&made.tree, table.by_name(slot.verity_label()).unwrap().offset_bytes()).unwrap();
        let name = UkiName::good(made.release.version.clone()).to_string();
        esp.create(&name).unwrap().write_all(&made.uki).unwrap();
    }
    let power = Power(Arc::new(power.into()));
    Machine { disk: CutDevice(device, power.clone()), esp: CutEsp(esp, power), old, running, folder }
}

impl Machine {
    fn ukis(&self) -> Vec<Uki> {
        esp::ukis(&self.esp).unwrap()
    }

    fn plan(&self, source: &Memory, release: &Release) -> Result<Plan> {
        let (table, _) = disk::read_table(&self.disk)?;
        decide(&Facts {
            release,
            targets: &source.targets,
            table: &table,
            running_root: &self.running.release.root_hash,
            running: &self.running.release.version,
            on_trial: false,
            ukis: &self.ukis(),
            esp_free_bytes: self.esp.free_bytes().unwrap(),
            tries: 3,
        })
    }

    fn install(&self, source: &Memory, release: &Release) -> Result<()> {
        let plan = self.plan(source, release)?;
        Installer { source, disk: &self.disk, esp: &self.esp }.run(&plan, &mut |_, _, _| ())
    }

    /// What the boot loader could start: each UKI that it sees has to be whole, and so has the root that it names.
    fn bootable(&self, all: &[&Made]) -> Vec<String> {
        let (table, _) = disk::read_table(&self.disk).unwrap();
        let mut found = Vec::new();
        for name in self.esp.names().unwrap().into_iter().filter(|name| name.ends_with(".efi")) {
            let parsed: UkiName = name.parse().unwrap();
            let made = all.iter().find(|made| made.release.version == parsed.version).unwrap();
            let bytes = std::fs::read(self.folder.join("esp").join(UkiName::FOLDER).join(&name)).unwrap();
            assert_eq!(bytes, made.uki, "{name} isn't whole");
            let slot = Slot::holding(&table, &made.release.root_hash);
            let slot = slot.unwrap_or_else(|| panic!("{name} is offered, but no slot has its root"));
            let read = |label: &str, length: usize| {
                let mut bytes = vec![0; length];
                self.disk.read_at(&mut bytes, table.by_name(label).unwrap().offset_bytes()).unwrap();
                bytes
            };
            assert_eq!(read(slot.root_label(), made.root.len()), made.root, "{name}: the root isn't whole");
            assert_eq!(read(slot.verity_label(), made.tree.len()), made.tree, "{name}: the tree isn't whole");
            found.push(name);
        }
        found.sort();
        found
    }
}

/// Shares a third with the running release, moved.
fn new_release() -> Made {
    make("1.1.0", |block| if block % 150 < 50 { block + 100 } else { block + 9000 })
}

#[test]
fn power_may_fail_at_any_write() {
    let new = new_release();
    let source = Memory::of(&new);
    let mut cuts = 0;
    loop {
        let machine = machine(cuts);
        let outcome = machine.install(&source, &new.release);
        let bootable = machine.bootable(&[&machine.old, &machine.running, &new]);
        assert!(bootable.contains(&"keel_1.0.0.efi".to_owned()), "cut {cuts}: only {bootable:?}");
        if outcome.is_ok() {
            assert_eq!(bootable, ["keel_1.0.0.efi", "keel_1.1.0+3.efi"]);
            break;
        }
        // Afterwards, with power, the install goes through.
        machine.disk.1.0.store(10_000, Ordering::Relaxed);
        machine.install(&source, &new.release).unwrap();
        let bootable = machine.bootable(&[&machine.running, &new]);
        assert_eq!(bootable, ["keel_1.0.0.efi", "keel_1.1.0+3.efi"], "again after cut {cuts}");
        cuts += 1;
        assert!(cuts < 200, "the install never ends");
    }
    assert!(cuts > 20, "only {cuts} writes were cut");
}

#[test]
fn only_what_is_new_is_fetched() {
    let (machine, new) = (machine(10_000), new_release());
    let source = Memory::of(&new);
    machine.install(&source, &new.release).unwrap();
    let fetched = source.served.load(Ordering::Relaxed) - (new.tree.len() + new.uki.len()) as u64;
    assert_eq!(fetched, 200 * BLOCK_BYTES as u64);
}

#[test]
fn a_server_without_ranges_and_a_connection_that_breaks_do_not_stop_an_install() {
    let new = new_release();
    let without = Memory { without_ranges: true, ..Memory::of(&new) };
    machine(10_000).install(&without, &new.release).unwrap();
    let all_new = make("1.1.0", |block| block + 9000);
    let breaking = Memory { cut_after: 70 * BLOCK_BYTES as u64, cuts: 3.into(), ..Memory::of(&all_new) };
    let machine = machine(10_000);
    machine.install(&breaking, &all_new.release).unwrap();
    assert_eq!(machine.bootable(&[&machine.running, &all_new]), ["keel_1.0.0.efi", "keel_1.1.0+3.efi"]);
}

#[test]
fn changed_files_are_refused_by_name_and_nothing_new_is_offered() {
    let new = new_release();
    for (suffix, at) in [(".root", 60 * BLOCK_BYTES), (".verity", 5000), (".efi", 100)] {
        let machine = machine(10_000);
        let mut source = Memory::of(&new);
        source.corrupt(suffix, at);
        let failure = machine.install(&source, &new.release).unwrap_err();
        assert_eq!(failure.code, ErrorCode::Digest, "{failure}");
        assert!(failure.message.contains(&format!("keel-cloud-1.1.0{suffix}")), "{failure}");
        let bootable = machine.bootable(&[&machine.old, &machine.running, &new]);
        assert!(!bootable.iter().any(|name| name.contains("1.1.0")), "{bootable:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_before_the_first_write() {
    let new = new_release();
    let source = Memory::of(&new);
    let machine = machine(0);
    let mut table = disk::read_table(&machine.disk).unwrap().0;
    let entry = table.entries.iter_mut().find(|entry| entry.name == "root-b").unwrap();
    entry.last_lba = entry.first_lba + 7;
    let ukis = machine.ukis();
    let facts = Facts {
        release: &new.release,
        targets: &source.targets,
        table: &table,
        running_root: &machine.running.release.root_hash,
        running: &machine.running.release.version,
        on_trial: false,
        ukis: &ukis,
        esp_free_bytes: MIB,
        tries: 3,
    };
    let failure = decide(&facts).unwrap_err();
    assert!(failure.code == ErrorCode::Space && failure.message.contains("root-b"), "{failure}");
    let table = disk::read_table(&machine.disk).unwrap().0;
    let failure = decide(&Facts { table: &table, esp_free_bytes: 0, ..facts }).unwrap_err();
    assert!(failure.code == ErrorCode::Space && failure.message.contains("esp"), "{failure}");
    let failure = decide(&Facts { table: &table, esp_free_bytes: MIB, on_trial: true, ..facts }).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Conflict);
    let none = RootHash::new([9; 32]);
    let failure = decide(&Facts { table: &table, running_root: &none, ..facts }).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Conflict);
}

#[test]
fn a_release_that_was_rolled_back_from_is_offered_again_without_a_fetch() {
    let (machine, new) = (machine(10_000), new_release());
    let source = Memory::of(&new);
    machine.install(&source, &new.release).unwrap();
    machine.esp.rename("keel_1.1.0+3.efi", "keel_1.1.0+0-1.efi").unwrap();
    let nothing = Memory { targets: source.targets.clone(), ..Memory::default() };
    machine.install(&nothing, &new.release).unwrap();
    assert_eq!(machine.bootable(&[&machine.running, &new]), ["keel_1.0.0.efi", "keel_1.1.0+3.efi"]);
}
