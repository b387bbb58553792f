//! Releases that are larger than the slots of the machine they are installed on.

use std::fs::{self, File};
use std::io::{BufWriter, Read as _, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fatfs::{FileSystem, FsOptions};
use fscommon::{BufStream, StreamSlice};
use keel_spec::disk::{ESP_LABEL, VAR, aligned};
use keel_spec::gpt::{Entry, Extent, Guid, SECTOR_BYTES, Table};
use serde_json::Value;

use super::fixture::{Fixture, Variant, release};
use super::update::reboot;
use crate::build::{Build, FIRST, SECOND};
use crate::clients::{Host, wait_http};
use crate::images;
use crate::machine::{Hardware, Machine};

const MIB: u64 = 1 << 20;
/// A disk whose reserve has room for a slot and an EFI system partition.
const LARGE_DISK_BYTES: u64 = 12 << 30;
/// What makes a release larger than a slot: bytes that can't be compressed, behind the end of a program.
const PADDING_BYTES: u64 = 8 * MIB;
const THIRD: &str = "0.3.0";
/// What fills the EFI system partition, and how much of that is left free.
const FILLER: &str = "somebody's file.bin";
const LEFT_FREE_BYTES: u64 = 4 * MIB;
/// Of the slots.
const LABELS: [&str; 4] = ["root-a", "verity-a", "root-b", "verity-b"];

pub(super) fn both_slots_and_esp(build: &Build) -> Result<()> {
    let fixture = Fixture::new(build, "enlarge")?;
    File::options().write(true).open(fixture.hardware.disk())?.set_len(LARGE_DISK_BYTES)?;
    shrink_slots(&fixture)?;
    fill_esp(&fixture.hardware)?;
    let before = fixture.hardware.partition_table()?.0;
    publish(&fixture, SECOND)?;
    let (mut machine, host) = fixture.boot()?;
    let archive = images::busybox(&fixture.dir, "web", "still here\n")?;
    host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
    host.docker_ok(&["run", "-d", "--name", "web", "--restart", "unless-stopped", "-p", "8080:80", "web:1"])?;
    wait_http(machine.port(8080)?, Duration::from_secs(60))?;

    let plan = host.keelctl_json(&["update", "plan"])?;
    ensure!(moving(&plan) == ["root-b", "verity-b", "esp"], "update plan: {plan}");
    host.install(None)?.finish()?;
    let status = restart(&mut machine, &host)?;
    ensure!(status["version"] == SECOND && status["slot"] == "b", "after the update: {status}");

    // What slot b had before is free now, and slot a grows into that.
    publish(&fixture, THIRD)?;
    let plan = host.keelctl_json(&["update", "plan"])?;
    ensure!(moving(&plan) == ["root-a", "verity-a"], "the next update plan: {plan}");
    host.install(None)?.finish()?;
    let status = restart(&mut machine, &host)?;
    ensure!(status["version"] == THIRD && status["slot"] == "a", "after the next update: {status}");
    let back = host.keelctl_json(&["update", "rollback"])?;
    ensure!(back["next_boot"] == SECOND, "rollback: {back}");
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(90))?;
    drop(machine);
    on_the_disk(&fixture.hardware, &before)
}

/// Restarts the machine; what ran before runs again then.
fn restart(machine: &mut Machine, host: &Host) -> Result<Value> {
    let status = reboot(machine, host)?;
    ensure!(status["problems"].as_array().is_some_and(Vec::is_empty), "problems: {status}");
    let page = wait_http(machine.port(8080)?, Duration::from_secs(60)).context("the web server after the reboot")?;
    ensure!(page == "still here\n", "the page after the reboot: {page}");
    Ok(status)
}

/// Labels of the partitions that a plan moves.
fn moving(plan: &Value) -> Vec<&str> {
    let rooms = plan["room"].as_array().into_iter().flatten();
    let larger = rooms.filter(|room| room["moves_to_bytes"].as_u64() > room["needs_bytes"].as_u64());
    larger.filter_map(|room| room["partition"].as_str()).collect()
}

/// Slots are larger, nothing else has moved but the EFI system partition, on which everything is that was there.
fn on_the_disk(hardware: &Hardware, before: &Table) -> Result<()> {
    let (table, _) = hardware.partition_table()?;
    for label in LABELS.into_iter().chain([ESP_LABEL]) {
        let [old, new] = [before, &table].map(|table| table.by_name(label));
        let (old, new) = old.zip(new).with_context(|| format!("partition {label}"))?;
        let is_larger = new.size_bytes() > old.size_bytes() || label.starts_with("verity");
        let is_elsewhere = new.first_lba != old.first_lba || new.last_lba != old.last_lba;
        ensure!(is_elsewhere && is_larger, "{label} was {old:?}, is {new:?}");
        ensure!(label != ESP_LABEL || old.unique == new.unique, "the EFI system partition has another GUID: {new:?}");
    }
    let state = [before, &table].map(|table| table.by_name("state").map(|entry| entry.first_lba));
    ensure!(state[0] == state[1], "the state partition has moved: {state:?}");
    let volume = esp(hardware)?;
    let mut filler = Vec::new();
    volume.root_dir().open_file(FILLER)?.read_to_end(&mut filler)?;
    ensure!(
        filler.chunks(MIB as usize).enumerate().all(|(at, chunk)| chunk.iter().all(|byte| *byte == at as u8)),
        "{FILLER}"
    );
    let mut config = String::new();
    volume.root_dir().open_file("loader/loader.conf")?.read_to_string(&mut config)?;
    ensure!(config.contains("timeout 0"), "loader.conf is no longer what it was: {config}");
    Ok(())
}

fn esp(hardware: &Hardware) -> Result<FileSystem<BufStream<StreamSlice<File>>>> {
    let (table, disk) = hardware.partition_table()?;
    let entry = table.by_name(ESP_LABEL).context("partition esp")?;
    let slice = StreamSlice::new(disk, entry.offset_bytes(), entry.offset_bytes() + entry.size_bytes())?;
    Ok(FileSystem::new(BufStream::new(slice), FsOptions::new())?)
}

/// Makes slots that the first release fills, one behind the other, and gives what is left of them to a partition that is
/// nobody's.
fn shrink_slots(fixture: &Fixture) -> Result<()> {
    let (mut table, disk) = fixture.hardware.partition_table()?;
    let first = table.by_name("root-a").context("partition root-a")?.first_lba;
    let end = table.by_name("state").context("partition state")?.first_lba;
    let release = release(&fixture.build, FIRST, Variant::Good)?;
    let length = |suffix: &str| {
        Ok::<_, anyhow::Error>(fs::metadata(release.join(format!("keel-cloud-{FIRST}.{suffix}")))?.len())
    };
    let tree_bytes = length("verity")?;
    let mut tree = vec![0; tree_bytes as usize];
    disk.read_exact_at(&mut tree, table.by_name("verity-a").context("partition verity-a")?.offset_bytes())?;
    let sizes = [length("root")?, tree_bytes].map(|bytes| aligned(bytes) / SECTOR_BYTES as u64);
    let mut at = first;
    for (label, sectors) in LABELS.into_iter().zip(sizes.into_iter().cycle()) {
        table.set_extent(label, &Extent { first_lba: at, end_lba: at + sectors })?;
        at += sectors;
    }
    disk.write_all_at(&tree, table.by_name("verity-a").context("partition verity-a")?.offset_bytes())?;
    let unique = Guid::from_u128(20);
    let (kind, name) = (VAR, "another".to_owned());
    table.entries.push(Entry { number: 20, kind, unique, first_lba: at, last_lba: end - 1, attributes: 0, name });
    Hardware::put_table(&table, &disk)
}

/// Leaves no room for a second UKI.
fn fill_esp(hardware: &Hardware) -> Result<()> {
    let volume = esp(hardware)?;
    let stats = volume.stats()?;
    let free = u64::from(stats.free_clusters()) * u64::from(stats.cluster_size());
    let mut file = volume.root_dir().create_file(FILLER)?;
    for number in 0..free.saturating_sub(LEFT_FREE_BYTES) / MIB {
        file.write_all(&[number as u8; MIB as usize])?;
    }
    file.flush()?;
    drop(file);
    Ok(volume.unmount()?)
}

/// Publishes a release that fits into no slot of the machine.
fn publish(fixture: &Fixture, version: &str) -> Result<()> {
    let program = padded(&fixture.build.programs.join("keel"), &fixture.dir)?;
    let out = fixture.dir.join("releases").join(version);
    fixture.build.release(version, &out, &[("/usr/lib/keel/keel", &program)], "")?;
    fixture.build.publish(&out, &fixture.dir.join("repository"))
}

/// The program with bytes behind its end that nothing looks at, the same ones for all releases.
fn padded(program: &Path, folder: &Path) -> Result<PathBuf> {
    let path = folder.join("keel-padded");
    if path.exists() {
        return Ok(path);
    }
    fs::copy(program, &path)?;
    let mut file = BufWriter::new(File::options().append(true).open(&path)?);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..PADDING_BYTES / 8 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        file.write_all(&random.to_le_bytes())?;
    }
    file.flush()?;
    Ok(path)
}
