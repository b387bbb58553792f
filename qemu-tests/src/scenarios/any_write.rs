//! The power fails after any write of a real machine's first boot and update.
//!
//! QEMU records what reaches the disk, from the first boot, which grows the partition table and the state's file system,
//! over an update to the orderly end. All states that a power cut may leave are looked at from outside, as far as they
//! concern what boots; of some the state's file system is checked; and some, drawn at random, are really booted.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use keel_spec::disk::{STATE_LABEL, Slot, reserve_bytes};
use keel_spec::release::Version;
use rustix::fs::{SeekFrom, seek};

use super::fixture::{BOOT_LIMIT, Fixture, Variant, release};
use crate::build::{Build, DISK_BYTES, FIRST, SECOND};
use crate::clients::Host;
use crate::machine::Hardware;
use crate::whole::Checker;
use crate::writes::{Kept, Op, Random, Recording, State};

/// Variables by which a person asks for other numbers.
const SEED: &str = "KEEL_SEED";
const BOOTED: &str = "KEEL_BOOTED_STATES";
/// States that are booted, and whose file system is checked, unless asked otherwise.
const DEFAULT_BOOTED: u64 = 4;
const FILE_SYSTEMS: u64 = 40;
/// Choices of what is lost, between two flushes.
const SUBSETS: u64 = 40;
/// A write of at most so many sectors is torn after each of them, a longer one at this many places.
const TORN_AFTER_EACH: u64 = 64;
const TORN_PLACES: u64 = 4;
/// Most states that are complained about one by one.
const MAX_TOLD: usize = 5;

/// Where in the recording what was going on.
struct Recorded {
    recording: Recording,
    /// The first boot was healthy here, and the install was done there.
    booted: usize,
    installed: usize,
    /// The disk's state before all of it.
    before: PathBuf,
}

pub(super) fn any_write(build: &Build) -> Result<()> {
    let seed = asked_or(SEED, now_s())?;
    let count = asked_or(BOOTED, DEFAULT_BOOTED)?;
    println!("        {SEED}={seed} {BOOTED}={count}");
    let fixture = Fixture::new(build, "power-cut-states")?;
    fixture.publish(SECOND, Variant::Good)?;
    let (fixture, recorded) = record(build, fixture)?;
    let ops = recorded.recording.ops.len();
    println!(
        "        {ops} requests: {} up to the first boot, {} after the install",
        recorded.booted, recorded.installed
    );
    let found = look_at_all(build, &fixture, &recorded)?;
    println!("        looked at {} states, booting {:?}, {} bad", found.tried, found.booted, found.bad.len());
    ensure!(found.bad.is_empty(), "states that boot no release whole:\n{}", tell(&found.bad));
    ensure!(found.booted.len() == 2, "the commit was never seen: {:?}", found.booted);
    let mut random = Random::new(seed);
    check_file_systems(&fixture, &recorded, &mut random)?;
    for number in 0..count {
        let state = draw(&recorded, number, &mut random);
        boot(build, &fixture, &recorded, number, &state).with_context(|| format!("{SEED}={seed}, {state:?}"))?;
    }
    Ok(())
}

/// Seconds since 1970.
pub(super) fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs())
}

/// The number in a variable, if it is set.
pub(super) fn asked_or(name: &str, otherwise: u64) -> Result<u64> {
    let text = std::env::var(name).ok();
    text.map_or(Ok(otherwise), |text| text.parse().with_context(|| format!("{name}={text}: want a number")))
}

fn tell(bad: &[String]) -> String {
    format!("{}\n({} in all)", bad[..bad.len().min(MAX_TOLD)].join("\n"), bad.len())
}

/// The first boot, an update, and the end, recorded.
fn record(build: &Build, mut fixture: Fixture) -> Result<(Fixture, Recorded)> {
    let before = build.build.join("tests/releases").join(format!("{FIRST}.raw"));
    let log = fixture.dir.join("writes.log");
    fixture.hardware.recording = Some(log.clone());
    let (mut machine, host) = fixture.boot()?;
    let booted = Recording::read(&log)?.ops.len();
    host.install(None)?.finish()?;
    let installed = Recording::read(&log)?.ops.len();
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(120))?;
    let mut recording = Recording::read(&log)?;
    // ext4 writes its superblock, two sectors, in place: it relies on a medium that doesn't tear within a block.
    let (table, _) = Hardware::table_of(&before)?;
    recording.blocks_from = table.by_name(STATE_LABEL).context("partition state")?.offset_bytes();
    let replayed = fixture.dir.join("replayed.raw");
    copy_disk(&before, &replayed)?;
    let all = State { upto: recording.ops.len(), kept: Kept::All };
    recording.apply(&all, &open(&replayed)?)?;
    let same = Command::new("cmp").arg(&replayed).arg(fixture.hardware.disk()).status().context("run cmp")?;
    ensure!(same.success(), "the recording isn't all that reached the disk");
    fs::remove_file(replayed)?;
    Ok((fixture, Recorded { recording, booted, installed, before }))
}

fn copy_disk(from: &Path, to: &Path) -> Result<()> {
    let done = Command::new("cp").arg("--sparse=always").args([from, to]).status().context("run cp")?;
    ensure!(done.success(), "cp {} {}: {done}", from.display(), to.display());
    Ok(File::options().write(true).open(to)?.set_len(DISK_BYTES)?)
}

pub(super) fn open(disk: &Path) -> Result<File> {
    File::options().read(true).write(true).open(disk).with_context(|| format!("open {}", disk.display()))
}

/// A copy of a disk, brought to a state.
pub(super) fn in_state(before: &Path, recording: &Recording, state: &State, path: &Path) -> Result<()> {
    copy_disk(before, path)?;
    recording.apply(state, &open(path)?)
}

#[derive(Default)]
struct Found {
    tried: usize,
    bad: Vec<String>,
    booted: BTreeMap<String, usize>,
}

impl Found {
    fn take(&mut self, booted: Result<Version, String>, wanted: &[&str], state: &State) {
        self.tried += 1;
        match booted {
            Ok(version) if wanted.contains(&version.to_string().as_str()) => {
                *self.booted.entry(version.to_string()).or_default() += 1;
            }
            Ok(version) => self.bad.push(format!("{state:?}: {version} boots, which isn't wanted here")),
            Err(why) => self.bad.push(format!("{state:?}: {why}")),
        }
    }
}

/// Goes through all states that differ in what boots.
fn look_at_all(build: &Build, fixture: &Fixture, recorded: &Recorded) -> Result<Found> {
    let path = fixture.dir.join("looked-at.raw");
    copy_disk(&recorded.before, &path)?;
    let releases = [release(build, FIRST, Variant::Good)?, release(build, SECOND, Variant::Good)?];
    let slots = [(Slot::A, releases[0].as_path()), (Slot::B, releases[1].as_path())];
    let mut look = Look { checker: Checker::new(open(&path)?, &slots)?, recorded, found: Found::default() };
    let mut from = 0;
    for (index, op) in recorded.recording.ops.iter().enumerate() {
        if *op == Op::Flush {
            look.window(from, index)?;
            from = index + 1;
        }
    }
    look.window(from, recorded.recording.ops.len())?;
    fs::remove_file(path)?;
    Ok(look.found)
}

struct Look<'a> {
    checker: Checker,
    recorded: &'a Recorded,
    found: Found,
}

impl Look<'_> {
    /// The requests between two flushes: after each sector, then with some of it lost.
    fn window(&mut self, from: usize, to: usize) -> Result<()> {
        let ops = &self.recorded.recording.ops[from..to];
        let places: Vec<(u64, u64)> = ops.iter().filter_map(Op::place).collect();
        let minded = places.iter().filter(|(offset, length)| self.checker.minds(*offset, *length)).count();
        if minded == 0 {
            return ops.iter().try_for_each(|op| self.recorded.recording.put(op, self.checker.disk()));
        }
        let before = places.iter().map(|place| self.read(*place)).collect::<Result<Vec<_>>>()?;
        for (index, op) in (from..).zip(ops) {
            self.one(index, op)?;
        }
        if minded > 1 {
            for number in 0..SUBSETS {
                self.put_back(&places, &before)?;
                let kept = if number % 2 == 0 { Kept::Writes(number) } else { Kept::Sectors(number) };
                let state = State { upto: to, kept };
                self.recorded.recording.apply_unsynced(&state, self.checker.disk())?;
                places.iter().try_for_each(|(offset, length)| self.checker.changed(*offset, *length))?;
                self.look(&state);
            }
            for op in ops {
                self.recorded.recording.put(op, self.checker.disk())?;
            }
            places.iter().try_for_each(|(offset, length)| self.checker.changed(*offset, *length))?;
        }
        Ok(())
    }

    /// One request, torn at sectors, then whole.
    fn one(&mut self, index: usize, op: &Op) -> Result<()> {
        let Some((offset, length)) = op.place() else { return Ok(()) };
        let minded = self.checker.minds(offset, length);
        if minded && let Op::Write { .. } = op {
            let sectors = length / 512;
            let step = if sectors <= TORN_AFTER_EACH { 1 } else { sectors.div_ceil(TORN_PLACES) };
            let mut written = 0;
            for torn in (step..sectors).step_by(step as usize) {
                // What an earlier tear wrote stays: it is the same.
                let state = State { upto: index + 1, kept: Kept::Torn(torn) };
                self.recorded.recording.put_part(op, torn, self.checker.disk())?;
                self.checker.changed(offset + written * 512, (torn - written) * 512)?;
                written = torn;
                self.look(&state);
            }
        }
        self.recorded.recording.put(op, self.checker.disk())?;
        if minded {
            self.checker.changed(offset, length)?;
            self.look(&State { upto: index + 1, kept: Kept::All });
        }
        Ok(())
    }

    fn look(&mut self, state: &State) {
        let booted = self.checker.boots();
        // Before the install began there is one release; once it is done, the new one is the choice.
        let wanted: &[&str] = match state.upto {
            upto if upto <= self.recorded.booted => &[FIRST],
            upto if upto > self.recorded.installed => &[SECOND],
            _ => &[FIRST, SECOND],
        };
        self.found.take(booted, wanted, state);
    }

    fn read(&self, (offset, length): (u64, u64)) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.checker.disk().read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn put_back(&mut self, places: &[(u64, u64)], before: &[Vec<u8>]) -> Result<()> {
        for ((offset, length), bytes) in places.iter().zip(before).rev() {
            self.checker.disk().write_all_at(bytes, *offset)?;
            self.checker.changed(*offset, *length)?;
        }
        Ok(())
    }
}

/// A state to be booted: the first of each four is one of the first boot, the others are of the update, every other one
/// of them where something of what boots next was just written.
fn draw(recorded: &Recorded, number: u64, random: &mut Random) -> State {
    let (booted, end) = (recorded.booted, recorded.recording.ops.len());
    match number % 4 {
        0 => recorded.recording.choose(0, booted, random),
        1 | 3 => recorded.recording.choose(booted, end, random),
        _ => {
            let esp = esp_writes(recorded);
            let at = esp.get(random.below(esp.len() as u64) as usize).copied().unwrap_or(end - 1);
            recorded.recording.choose(at, at + 1, random)
        }
    }
}

/// Requests of the update that write few sectors of tables or of the EFI system partition, which is at the disk's start.
fn esp_writes(recorded: &Recorded) -> Vec<usize> {
    let esp_end = keel_spec::disk::Sizes::CLOUD.esp_bytes;
    let ops = recorded.recording.ops.iter().enumerate().skip(recorded.booted);
    let small = ops.filter(|(_, op)| op.place().is_some_and(|(offset, length)| offset < esp_end && length <= 32 << 10));
    small.map(|(index, _)| index).collect()
}

/// Of some states, the file system that the machine's state is on: after its journal is replayed nothing is wrong that
/// a person would have to decide on.
fn check_file_systems(fixture: &Fixture, recorded: &Recorded, random: &mut Random) -> Result<()> {
    let path = fixture.dir.join("file-system.raw");
    let offset = recorded.recording.blocks_from;
    let alone = fixture.dir.join("file-system.ext4");
    for number in 0..FILE_SYSTEMS {
        let ends = if number % 2 == 0 { (0, recorded.booted) } else { (0, recorded.recording.ops.len()) };
        let state = recorded.recording.choose(ends.0, ends.1, random);
        in_state(&recorded.before, &recorded.recording, &state, &path)?;
        cut_out(&path, offset, &alone)?;
        check_file_system(&alone).with_context(|| format!("{state:?}"))?;
    }
    println!("        {FILE_SYSTEMS} states of the state's file system checked");
    fs::remove_file(alone)?;
    Ok(fs::remove_file(path)?)
}

/// Replays a file system's journal; nothing may be wrong then that a person would have to decide on.
pub(super) fn check_file_system(alone: &Path) -> Result<()> {
    let output = Command::new("e2fsck").args(["-f", "-p"]).arg(alone).output();
    let output = output.context("run e2fsck: is the package e2fsprogs installed?")?;
    // 1: mended by itself, as a mount does (e2fsck(8)).
    if !matches!(output.status.code(), Some(0 | 1)) {
        bail!("the state's file system: {}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// A file of its own for what is on a disk from an offset on: e2fsck replays no journal inside of another file.
pub(super) fn cut_out(disk: &Path, offset: u64, out: &Path) -> Result<()> {
    let (disk, out) = (open(disk)?, File::create(out)?);
    let end = disk.metadata()?.len();
    out.set_len(end - offset)?;
    let mut at = offset;
    // Holes are passed over; ENXIO: there is nothing but a hole any more (lseek(2)).
    while let Ok(data) = seek(&disk, SeekFrom::Data(at)) {
        at = seek(&disk, SeekFrom::Hole(data))?;
        let mut piece = vec![0; 1 << 20];
        for from in (data..at).step_by(piece.len()) {
            let bytes = &mut piece[..((at - from).min(1 << 20)) as usize];
            disk.read_exact_at(bytes, from)?;
            out.write_all_at(bytes, from - offset)?;
        }
    }
    Ok(())
}

/// Boots a state: a release comes up whole, at once, and finds nothing to complain of.
fn boot(build: &Build, fixture: &Fixture, recorded: &Recorded, number: u64, state: &State) -> Result<()> {
    let dir = fixture.dir.join(format!("state-{number}"));
    let mut hardware = Hardware::with_disk(build, &dir, &recorded.before, DISK_BYTES)?;
    hardware.config.clone_from(&fixture.hardware.config);
    recorded.recording.apply(state, &open(&hardware.disk())?)?;
    let mut machine = hardware.power_on()?;
    let host = Host::of(build, &machine)?;
    let status = host.wait_health(&machine, "good", BOOT_LIMIT)?;
    let version = status["version"].as_str().unwrap_or_default();
    println!("        booted {state:?}: {version}");
    let wanted: &[&str] = if state.upto <= recorded.booted { &[FIRST] } else { &[FIRST, SECOND] };
    ensure!(wanted.contains(&version), "{version} came up");
    ensure!(status["bad_releases"].as_array().is_some_and(Vec::is_empty), "it failed once: {status}");
    ensure!(status["problems"].as_array().is_some_and(Vec::is_empty), "problems: {status}");
    let starts = machine.console().matches("is on trial until").count();
    ensure!(starts <= 1, "it took {starts} tries:\n{}", machine.console());
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(120))?;
    let (table, _) = hardware.partition_table()?;
    let end = table.by_name(STATE_LABEL).map_or(0, |entry| entry.offset_bytes() + entry.size_bytes());
    let wanted = reserve_bytes(DISK_BYTES)..reserve_bytes(DISK_BYTES) + (2 << 20);
    ensure!(
        wanted.contains(&(DISK_BYTES - end)),
        "the state partition ends at {end}, not {wanted:?} before the disk's end"
    );
    Ok(fs::remove_dir_all(dir)?)
}
