//! What isn't as it should be gets one clear message that names the thing and the reason, and nothing that worked
//! before stops working.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use keel_spec::disk::STATE_LABEL;
use keel_spec::gpt::{Guid, SECTOR_BYTES};

use super::fixture::{Fixture, Variant, release};
use crate::build::{Build, DISK_BYTES, FIRST, SECOND, run};
use crate::clients::{Host, wait_http};
use crate::images;
use crate::machine::{Hardware, WORKSTATION_IN_GUEST};
use crate::registry::Registry;
use crate::repository::Fault;

/// Exit codes of `keelctl`, as its `--help` lists them.
const SIGNATURE: i32 = 11;
const EXPIRED: i32 = 12;
const ROLLBACK: i32 = 13;
const DIGEST: i32 = 14;
const SPACE: i32 = 15;

pub(super) fn releases(build: &Build) -> Result<()> {
    let fixture = Fixture::new(build, "bad-releases-refused")?;
    let repository = fixture.dir.join("repository");
    fixture.publish("0.0.9", Variant::Good)?;
    let (machine, host) = fixture.boot()?;
    let archive = images::busybox(&fixture.dir, "web", "untouched\n")?;
    host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
    host.docker_ok(&["run", "-d", "--name", "web", "-p", "8080:80", "web:1"])?;
    wait_http(machine.port(8080)?, Duration::from_secs(60))?;
    let untouched = || -> Result<()> {
        let update = host.keelctl_json(&["update", "status"])?;
        ensure!(update["running"] == FIRST && update["next_boot"] == FIRST, "something changed: {update}");
        ensure!(wait_http(machine.port(8080)?, Duration::from_secs(10))? == "untouched\n", "the container's page");
        Ok(())
    };

    refused(&host, &["update", "install", "0.0.9"], ROLLBACK, &["0.0.9", FIRST])?;
    untouched()?;
    fixture.publish(SECOND, Variant::Good)?;

    let timestamp = repository.join("timestamp.json");
    let good = fs::read(&timestamp)?;
    break_signature(&timestamp)?;
    refused(&host, &["update", "install"], SIGNATURE, &["timestamp.json", "signature"])?;
    refused(&host, &["update", "check"], SIGNATURE, &["timestamp.json"])?;
    untouched()?;
    fs::write(&timestamp, good)?;

    for suffix in ["json", "verity", "root", "efi"] {
        let name = format!("keel-cloud-{SECOND}.{suffix}");
        let fault = if suffix == "root" { Fault::FlipBlocks } else { Fault::FlipBit(100) };
        fixture.server.set_fault(&name, Some(fault));
        refused(&host, &["update", "install"], DIGEST, &[&name])?;
        fixture.server.set_fault(&name, None);
        untouched()?;
    }
    stale_timestamp(&fixture, &host)?;
    untouched()?;
    fixture.publish(SECOND, Variant::Good)?;
    host.install(None)?.finish().context("the same release, whole, after all refusals")
}

/// A timestamp that expired is refused, however good its signature.
fn stale_timestamp(fixture: &Fixture, host: &Host) -> Result<()> {
    run(fixture
        .build
        .keel_image()
        .args(["publish", "--timestamp-only", "--timestamp-expires-days=-1", "--repository"])
        .arg(fixture.dir.join("repository")))?;
    refused(host, &["update", "install"], EXPIRED, &["timestamp.json", "expired"])
}

/// Runs `keelctl`, which must fail with `code` and a message that names all of `parts`.
fn refused(host: &Host, arguments: &[&str], code: i32, parts: &[&str]) -> Result<()> {
    let message = host.keelctl_fails(arguments, code)?;
    for part in parts {
        ensure!(message.contains(part), "message of keelctl {arguments:?} doesn't name {part:?}: {message}");
    }
    Ok(())
}

/// Changes one digit of the first signature in a metadata file.
fn break_signature(file: &Path) -> Result<()> {
    let text = fs::read_to_string(file)?;
    let at = text.find("\"sig\"").context("a signature")? + 5;
    let digit = at + text[at..].find(|c: char| c.is_ascii_hexdigit()).context("its first digit")?;
    let other = if text.as_bytes()[digit] == b'0' { "1" } else { "0" };
    let mut broken = text.clone();
    broken.replace_range(digit..=digit, other);
    Ok(fs::write(file, broken)?)
}

pub(super) fn registries(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "bad-registry")?;
    let registry = Registry::start(&fixture.dir.join("registry"))?;
    registry.push(&images::busybox(&fixture.dir, "web", "page\n")?, "web:1")?;
    let address = format!("{WORKSTATION_IN_GUEST}:{}", registry.port());
    let away = format!("{WORKSTATION_IN_GUEST}:1");
    fixture.add_config(&format!("[registry]\ninsecure = [\"{address}\", \"{away}\"]"));
    let (_machine, host) = fixture.boot()?;

    pull_fails(&host, &format!("{away}/web:1"), &[&away])?;
    pull_fails(&host, &format!("{address}/nothing:1"), &["nothing"])?;
    let blob = largest_blob(&fixture.dir.join("registry/content"))?;
    flip_byte(&blob, 5000)?;
    let digest = blob.parent().and_then(Path::file_name).and_then(|name| name.to_str()).context("digest")?.to_owned();
    pull_fails(&host, &format!("{address}/web:1"), &[&digest])?;
    let images = host.docker_ok(&["images", "-q"])?;
    ensure!(images.is_empty(), "a failed pull left an image: {images}");
    flip_byte(&blob, 5000)?;
    host.docker_ok(&["pull", &format!("{address}/web:1")]).context("the same image, whole, after the failures")?;
    Ok(())
}

fn pull_fails(host: &Host, reference: &str, parts: &[&str]) -> Result<()> {
    let output = host.docker(&["pull", reference]).output()?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success(), "docker pull {reference} went well");
    for part in parts {
        ensure!(message.contains(part), "message of docker pull {reference} doesn't name {part:?}: {message}");
    }
    Ok(())
}

/// The largest file below a folder: in a registry with one image, its layer.
fn largest_blob(dir: &Path) -> Result<PathBuf> {
    let mut folders = vec![dir.to_owned()];
    let mut largest = (0, PathBuf::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.len() > largest.0 {
                largest = (meta.len(), entry.path());
            }
        }
    }
    Ok(largest.1)
}

fn flip_byte(path: &Path, offset: u64) -> Result<()> {
    let file = fs::File::options().read(true).write(true).open(path)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)?;
    file.write_all_at(&[byte[0] ^ 0xff], offset)?;
    Ok(())
}

pub(super) fn config(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "bad-config")?;
    fixture.hardware.config.insert_str(0, "hostname = \"first-name\"\n");
    let (mut machine, host) = fixture.boot()?;
    let status = host.keelctl_json(&["status"])?;
    ensure!(status["hostname"] == "first-name", "host name from the config: {status}");
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(90))?;
    drop(machine);

    let good = fixture.hardware.config.replace("first-name", "second-name");
    fixture.hardware.config = good.replacen("[api]\n", "[api]\nlisten = \"nowhere\"\n", 1);
    let (mut machine, host) = fixture.boot()?;
    let status = host.keelctl_json(&["status"])?;
    ensure!(status["hostname"] == "first-name", "the last good config stays in force: {status}");
    let problems = status["problems"].to_string();
    for part in ["line 3", "column", "api.listen", "nowhere"] {
        ensure!(problems.contains(part), "the problem doesn't name {part:?}: {problems}");
    }
    // The console is a late service.
    machine.wait_console("api.listen", 0, Duration::from_secs(60)).context("the problem on the console")?;
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(90))?;
    drop(machine);

    fixture.hardware.config = good;
    let (_machine, host) = fixture.boot()?;
    let status = host.keelctl_json(&["status"])?;
    ensure!(status["hostname"] == "second-name", "the mended config is in force: {status}");
    ensure!(status["problems"].as_array().is_some_and(Vec::is_empty), "problems after the mending: {status}");
    Ok(())
}

pub(super) fn small_slot(build: &Build) -> Result<()> {
    let fixture = Fixture::new(build, "small-disk")?;
    fixture.publish(SECOND, Variant::Good)?;
    shrink_slot_b(&fixture)?;
    let (_machine, host) = fixture.boot()?;
    let need = fs::metadata(release(build, SECOND, Variant::Good)?.join(format!("keel-cloud-{SECOND}.root")))?.len();
    ensure!(need > 1 << 20, "the release fits into 1 MiB");
    refused(&host, &["update", "install"], SPACE, &["root-b", SECOND, "enlarge the disk"])?;
    let update = host.keelctl_json(&["update", "status"])?;
    ensure!(update["next_boot"] == FIRST, "something changed: {update}");
    Ok(())
}

/// Makes the partition `root-b` 1 MiB long, with somebody else's partition behind it, on a disk that the state partition has
/// all the rest of, as in the days when nothing was kept free: there is nowhere to move the slot to.
fn shrink_slot_b(fixture: &Fixture) -> Result<()> {
    let (mut table, disk) = fixture.hardware.partition_table()?;
    table.resize_disk(DISK_BYTES / SECTOR_BYTES as u64)?;
    table.grow(STATE_LABEL, 0)?;
    let slot = table.entries.iter_mut().find(|entry| entry.name == "root-b").context("partition root-b")?;
    let mut other = slot.clone();
    slot.last_lba = slot.first_lba + 2047;
    (other.number, other.first_lba, other.name) = (20, slot.last_lba + 1, "another".into());
    (other.kind, other.unique) = (keel_spec::disk::VAR, Guid::from_u128(20));
    table.entries.push(other);
    Hardware::put_table(&table, &disk)
}
