//! Whether a disk boots a release whole, told by other code than that which wrote it: the FAT is read by `fatfs`, the
//! choice is systemd-boot's, roots and trees are compared block by block with what was published.
//!
//! [`explore`] goes through the states in which a power cut may leave a disk while something writes to it: after every
//! sector of every write, and, for what isn't synced yet, with writes dropped, alone, reordered and torn at 512 bytes.

use std::collections::{BTreeMap, HashMap};
use std::io::{Cursor, Read as _};

use fatfs::{FileSystem, FsOptions};
use keel_spec::cmdline::BootParameters;
use keel_spec::disk::{root_guid, verity_guid};
use keel_spec::gpt::{BACKUP_SECTORS, Damage, PRIMARY_SECTORS, SECTOR_BYTES, Table};
use keel_spec::release::{UkiName, Version};
use keel_spec::verity::{BLOCK_BYTES, block_hash};
use keel_updater::blocks::sha256;
use keel_updater::uki;

use super::{Made, Op};

/// Random subsets of what isn't synced that are tried at each sync.
const SUBSETS: usize = 40;
/// Most single writes that are dropped, or left alone, at each sync.
const SINGLES: usize = 64;

/// A release's blocks, root and tree, as digests.
struct Expected {
    version: Version,
    uki: Vec<u8>,
    root: Vec<[u8; 32]>,
    tree: Vec<[u8; 32]>,
}

fn digests(bytes: &[u8]) -> Vec<[u8; 32]> {
    bytes.chunks(BLOCK_BYTES).map(|block| block_hash(block, &sha256)).collect()
}

/// A disk in some state.
pub struct Disk {
    image: Vec<u8>,
    releases: HashMap<[u8; 32], Expected>,
    /// Digests of blocks that haven't changed since they were computed.
    known: HashMap<usize, [u8; 32]>,
}

impl Disk {
    pub fn new(image: Vec<u8>, releases: &[&Made]) -> Self {
        let expected = |made: &&Made| {
            let (root, tree) = (digests(&made.root), digests(&made.tree));
            let expected = Expected { version: made.release.version.clone(), uki: made.uki.clone(), root, tree };
            (*made.release.root_hash.as_bytes(), expected)
        };
        Self { image, releases: releases.iter().map(expected).collect(), known: HashMap::new() }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.image[offset..offset + bytes.len()].copy_from_slice(bytes);
        (offset / BLOCK_BYTES..=(offset + bytes.len() - 1) / BLOCK_BYTES).for_each(|block| {
            self.known.remove(&block);
        });
    }

    fn holds(&mut self, offset: u64, wanted: impl Fn(&Expected) -> &Vec<[u8; 32]>, release: &[u8; 32]) -> bool {
        let (image, known) = (&self.image, &mut self.known);
        let first = offset as usize / BLOCK_BYTES;
        let mut blocks = wanted(&self.releases[release]).iter().zip(first..);
        blocks.all(|(wanted, block)| {
            let digest = known
                .entry(block)
                .or_insert_with(|| block_hash(&image[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES], &sha256));
            digest == wanted
        })
    }

    /// The release that would boot, if everything that could be started would run whole. Where both copies of the
    /// partition table are whole and differ, the machine would have to boot by either.
    pub fn boots(&mut self) -> Result<Version, String> {
        let primary = &self.image[..PRIMARY_SECTORS as usize * SECTOR_BYTES];
        let backup = &self.image[self.image.len() - BACKUP_SECTORS as usize * SECTOR_BYTES..];
        let (table, damage) = Table::read(primary, backup).map_err(|error| error.to_string())?;
        if damage == Damage::Differ {
            let other = Table::read_backup(backup).map_err(|error| error.to_string())?;
            self.boots_by(&other).map_err(|why| format!("by the backup of the table: {why}"))?;
        }
        self.boots_by(&table)
    }

    fn boots_by(&mut self, table: &Table) -> Result<Version, String> {
        let mut offered = Vec::new();
        for (name, bytes) in self.ukis(table)? {
            let parsed: UkiName = name.parse().map_err(|_| format!("{name} would be started"))?;
            let line = uki::cmdline(&mut Cursor::new(&bytes)).ok().flatten().ok_or(format!("{name} is no UKI"))?;
            let root_hash = BootParameters::parse(&line).map_err(|error| format!("{name}: {error}"))?.root_hash;
            let release = *root_hash.as_bytes();
            let expected = self.releases.get(&release).ok_or(format!("{name} boots what was never published"))?;
            if bytes != expected.uki {
                return Err(format!("{name} isn't whole"));
            }
            let place = |guid| table.by_unique(guid).map(keel_spec::gpt::Entry::offset_bytes);
            let places = place(root_guid(&root_hash)).zip(place(verity_guid(&root_hash)));
            let (root, tree) = places.ok_or(format!("{name} is offered, but its partitions aren't there"))?;
            if !self.holds(tree, |expected| &expected.tree, &release) {
                return Err(format!("{name}: the tree isn't whole"));
            }
            if !self.holds(root, |expected| &expected.root, &release) {
                return Err(format!("{name}: the root isn't whole"));
            }
            offered.push((parsed.is_offered(), self.releases[&release].version.clone()));
        }
        // systemd-boot: what ran out of tries comes last, then the newest first.
        offered.into_iter().max().map(|(_, version)| version).ok_or("nothing is offered".into())
    }

    /// What the boot loader sees: files whose names end in `.efi`.
    fn ukis(&mut self, table: &Table) -> Result<Vec<(String, Vec<u8>)>, String> {
        let esp = table.by_name("esp").ok_or("there is no esp")?;
        let place = esp.offset_bytes() as usize..(esp.offset_bytes() + esp.size_bytes()) as usize;
        let read = || -> std::io::Result<Vec<(String, Vec<u8>)>> {
            let fs = FileSystem::new(Cursor::new(&mut self.image[place]), FsOptions::new())?;
            let mut found = Vec::new();
            for entry in fs.root_dir().open_dir("EFI/Linux")?.iter() {
                let entry = entry?;
                if entry.is_file() && entry.file_name().to_ascii_lowercase().ends_with(".efi") {
                    let mut bytes = Vec::new();
                    entry.to_file().read_to_end(&mut bytes)?;
                    found.push((entry.file_name(), bytes));
                }
            }
            Ok(found)
        };
        read().map_err(|error| format!("the EFI system partition can't be read: {error}"))
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub tried: usize,
    pub bad: usize,
    /// The first few, in words.
    pub why: Vec<String>,
    /// How often which release would have booted.
    pub booted: BTreeMap<String, usize>,
}

impl Found {
    pub fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.bad += other.bad;
        self.why.extend(other.why);
        other.booted.into_iter().for_each(|(version, count)| *self.booted.entry(version).or_default() += count);
    }

    fn check(&mut self, disk: &mut Disk, allowed: &[&Made], what: impl FnOnce() -> String) {
        self.tried += 1;
        let wrong = match disk.boots() {
            Ok(version) => {
                *self.booted.entry(version.to_string()).or_default() += 1;
                let fine = allowed.iter().any(|made| made.release.version == version);
                (!fine).then(|| format!("{version} boots, which isn't wanted here"))
            }
            Err(why) => Some(why),
        };
        if let Some(why) = wrong {
            self.bad += 1;
            if self.why.len() < 5 {
                self.why.push(format!("{}: {why}", what()));
            }
        }
    }
}

/// A sector that isn't synced: which write it belongs to, where it is, what was there and what comes.
struct Sector {
    write: usize,
    offset: usize,
    old: Vec<u8>,
    new: Vec<u8>,
}

/// Goes through all states; `allowed` are the releases that may boot. Returns the image after all of it, too.
pub fn explore(name: &str, image: Vec<u8>, log: &[Op], releases: &[&Made], allowed: &[&Made]) -> (Found, Vec<u8>) {
    let mut disk = Disk::new(image, releases);
    let mut found = Found::default();
    found.check(&mut disk, allowed, || format!("{name}: before"));
    let mut window: Vec<Sector> = Vec::new();
    for (write, op) in log.iter().enumerate() {
        match op {
            Op::Write(offset, bytes) => {
                for (index, new) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    let offset = *offset as usize + index * SECTOR_BYTES;
                    let old = disk.image[offset..offset + SECTOR_BYTES].to_vec();
                    disk.put(offset, new);
                    window.push(Sector { write, offset, old, new: new.to_vec() });
                    found.check(&mut disk, allowed, || format!("{name}: write {write}, sector {index}"));
                }
            }
            Op::Sync => variants(name, &mut disk, &mut found, std::mem::take(&mut window), allowed),
        }
    }
    variants(name, &mut disk, &mut found, window, allowed);
    (found, disk.image)
}

/// Subsets of what was written between two syncs: a medium may keep any of it.
fn variants(name: &str, disk: &mut Disk, found: &mut Found, window: Vec<Sector>, allowed: &[&Made]) {
    let mut writes: Vec<usize> = window.iter().map(|sector| sector.write).collect();
    writes.dedup();
    if window.len() < 2 {
        return;
    }
    let mut random = 0x9e37_79b9_7f4a_7c15_u64 ^ (window.len() as u64) << 32 ^ writes[0] as u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut kept: Vec<(String, Vec<bool>)> = Vec::new();
    let mut by = |what: String, keep: &mut dyn FnMut(&Sector) -> bool| {
        kept.push((what, window.iter().map(keep).collect()));
    };
    let step = writes.len().div_ceil(SINGLES);
    for write in writes.iter().step_by(step) {
        by(format!("write {write} dropped"), &mut |sector| sector.write != *write);
        by(format!("write {write} alone"), &mut |sector| sector.write == *write);
        by(format!("writes before {write} dropped"), &mut |sector| sector.write >= *write);
    }
    for number in 0..SUBSETS {
        by(format!("random sectors {number}"), &mut |_| next() % 2 == 0);
    }
    for (what, keep) in kept {
        window.iter().rev().for_each(|sector| disk.put(sector.offset, &sector.old));
        let chosen = window.iter().zip(keep).filter(|(_, keep)| *keep);
        chosen.for_each(|(sector, _)| disk.put(sector.offset, &sector.new));
        found.check(disk, allowed, || {
            format!("{name}: before the sync after write {}, {what}", writes[writes.len() - 1])
        });
    }
    window.iter().for_each(|sector| disk.put(sector.offset, &sector.new));
}
