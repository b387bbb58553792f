//! Updates that skip the firmware.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::fallback::wait_fallback;
use super::fixture::{Fixture, Variant};
use super::update::{reboot, wait_next_boot};
use crate::build::{Build, DISK_BYTES, FIRST, SECOND, run};
use crate::clients::Host;
use crate::machine::{Hardware, Machine, SNAKEOIL_KEY, SNAKEOIL_PASSWORD, SNAKEOIL_VARIABLES};

/// A release that panics, newer than the good one.
const THIRD: &str = "0.3.0";
/// Longest time between the end of a trial and its last write.
const TRIAL_LIMIT: Duration = Duration::from_secs(60);
/// What the firmware shows on the console when it starts something.
const FIRMWARE: &str = "BdsDxe: starting";

pub(super) fn updates(build: &Build) -> Result<()> {
    let fixture = trusted_machine(build, "kexec")?;
    let (mut machine, host) = fixture.boot()?;
    ensure!(machine.console().contains(FIRMWARE), "the console doesn't show the firmware's start");

    host.install(Some(SECOND))?.finish()?;
    let status = without_firmware(&machine, &host, SECOND)?;
    ensure!(status["version"] == SECOND && status["slot"] == "b", "after the update: {status}");
    let update = after_trial(&host)?;
    ensure!(update["next_boot"] == SECOND, "after the trial: {update}");
    let status = reboot(&mut machine, &host)?;
    ensure!(status["version"] == SECOND, "through the firmware, after the trial: {status}");

    let shown = machine.console().len();
    host.install(Some(THIRD))?.finish()?;
    let answer = host.keelctl_json(&["reboot", "--kexec"])?;
    ensure!(answer["kexec"] == THIRD, "restart: {answer}");
    let status = wait_fallback(&host, &machine, SECOND)?;
    ensure!(status["bad_releases"][0]["version"] == THIRD, "bad release: {status}");
    let console = machine.console().get(shown..).unwrap_or_default().to_owned();
    let panics = console.matches("Kernel panic").count();
    // Two tries: one by kexec, one through the firmware, which then starts the release before.
    let starts = console.matches(FIRMWARE).count();
    ensure!(starts == 2, "the firmware started something {starts} times, {panics} panics:\n{console}");
    Ok(())
}

/// Waits until the updater has dropped the counter, which comes right after the host is said to be good.
fn after_trial(host: &Host) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let update = host.keelctl_json(&["update", "status"])?;
        if update["on_trial"] == false {
            return Ok(update);
        }
        ensure!(begun.elapsed() < TRIAL_LIMIT, "still on trial: {update}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Restarts by kexec and waits until the host is good again, without the firmware having been seen.
fn without_firmware(machine: &Machine, host: &Host, version: &str) -> Result<Value> {
    let (before, shown) = (host.keelctl_json(&["status"])?, machine.console().len());
    let answer = host.keelctl_json(&["reboot", "--kexec"])?;
    ensure!(answer["kexec"] == version && answer["refused"] == Value::Null, "restart: {answer}");
    let status = wait_next_boot(machine, host, &before)?;
    let console = machine.console().get(shown..).unwrap_or_default().to_owned();
    ensure!(!console.contains(FIRMWARE), "the firmware wasn't skipped:\n{console}");
    Ok(status)
}

pub(super) fn refused(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "kexec-refused")?;
    fixture.configure("[update]\n", "[update]\nkexec = true\n");
    fixture.publish(SECOND, Variant::Good)?;
    let (machine, host) = fixture.boot()?;
    host.install(None)?.finish()?;
    let before = host.keelctl_json(&["status"])?;
    let answer = host.keelctl_json(&["reboot"])?;
    let why = answer["refused"].as_str().unwrap_or_default();
    ensure!(answer["kexec"] == Value::Null && why.contains("locked down") && why.contains("db"), "restart: {answer}");
    let status = wait_next_boot(&machine, &host, &before)?;
    ensure!(status["version"] == SECOND, "after the restart: {status}");
    Ok(())
}

/// A machine whose firmware holds Debian's test key, with releases that are signed with it.
pub(crate) fn trusted_machine(build: &Build, name: &str) -> Result<Fixture> {
    let mut fixture = Fixture::new(build, name)?;
    fixture.configure("[update]\n", "[update]\ntries = 2\n");
    let build = Build { keys: keys(&fixture.dir, &build.keys)?, ..build.clone() };
    let release = |version: &str, replace: &[(&str, &Path)]| -> Result<_> {
        let out = fixture.dir.join(version);
        build.release(version, &out, replace, "")?;
        Ok(out)
    };
    let panics = build.fault("panic-init");
    let first = release(FIRST, &[])?;
    for (version, replace) in [(SECOND, &[][..]), (THIRD, &[("/usr/lib/keel/init", panics.as_path())][..])] {
        build.publish(&release(version, replace)?, &fixture.dir.join("repository"))?;
    }
    let disk = fixture.dir.join("trusted.raw");
    build.disk(&first, &disk)?;
    let config = std::mem::take(&mut fixture.hardware.config);
    fixture.hardware = Hardware::with_disk(&build, &fixture.dir.join("trusted"), &disk, DISK_BYTES)?;
    fixture.hardware.config = config;
    fixture.hardware.set_variables(SNAKEOIL_VARIABLES)?;
    Ok(fixture)
}

/// The workstation's keys, but for Secure Boot the test key.
fn keys(dir: &Path, ours: &Path) -> Result<std::path::PathBuf> {
    let keys = dir.join("keys");
    fs::create_dir_all(&keys)?;
    for entry in fs::read_dir(ours).with_context(|| format!("list {}", ours.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), keys.join(entry.file_name()))?;
        }
    }
    fs::copy(Path::new(SNAKEOIL_KEY).with_extension("pem"), keys.join("db.crt"))
        .with_context(|| format!("copy the certificate beside {SNAKEOIL_KEY}: is the package ovmf installed?"))?;
    let mut open = Command::new("openssl");
    open.args(["rsa", "-in", SNAKEOIL_KEY, "-passin", &format!("pass:{SNAKEOIL_PASSWORD}"), "-out"]);
    run(open.arg(keys.join("db.key")))?;
    Ok(keys)
}
