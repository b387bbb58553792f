//! A machine whose state partition is put back while it is off: its TPM knows better.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::fixture::{Fixture, Variant};
use crate::build::{Build, FIRST, SECOND, run};
use crate::clients::Host;
use crate::machine::Machine;

/// A signed release with a hole, say: newer than the first, older than the second.
const BETWEEN: &str = "0.1.5";
/// Longest wait for the updater's word with the TPM, after the boot.
const TPM_LIMIT: Duration = Duration::from_secs(120);
const OFF_LIMIT: Duration = Duration::from_secs(90);

pub(super) fn rewound(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "tpm")?;
    fixture.hardware.tpm = true;
    fixture.publish(BETWEEN, Variant::Good)?;
    fixture.publish(SECOND, Variant::Good)?;
    let (machine, host) = fixture.boot()?;
    let update = minimum(&host, FIRST)?;
    ensure!(update["minimum"]["in_tpm"] == true, "the first release isn't held in the TPM: {update}");
    by_bundle(&fixture, &host)?;
    off(machine, &host)?;

    let earlier = fixture.dir.join("earlier.raw");
    run(Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(fixture.hardware.disk()).arg(&earlier))?;
    let (machine, host) = fixture.boot()?;
    let update = minimum(&host, SECOND)?;
    let held = &update["minimum"];
    ensure!(update["running"] == SECOND && held["in_tpm"] == true && held["rewound"] == Value::Null, "good: {update}");
    host.keelctl_ok(&["update", "rollback"])?;
    off(machine, &host)?;

    put_state_back(&fixture, &earlier)?;
    let (_machine, host) = fixture.boot()?;
    let update = minimum(&host, SECOND)?;
    let why = update["minimum"]["rewound"][1].as_str().unwrap_or_default();
    ensure!(update["running"] == FIRST && why.contains("earlier copy"), "after the rewinding: {update}");
    let message = host.keelctl_fails(&["update", "install", BETWEEN], 13)?;
    ensure!(message.contains(SECOND) && message.contains("proved itself"), "refusal of an older release: {message}");
    let check = host.keelctl_json(&["update", "check"])?;
    ensure!(check["available"] == Value::Null, "an older release is offered: {check}");
    let shown = host.keelctl_ok(&["update", "status"])?;
    ensure!(shown.contains("held in the TPM") && shown.contains("rewound"), "status: {shown}");
    Ok(())
}

/// Sends the second release as a bundle, over the API.
fn by_bundle(fixture: &Fixture, host: &Host) -> Result<()> {
    let bundle = fixture.dir.join("keel.bundle");
    let mut command = fixture.build.keel_image();
    command.args(["bundle", "--version", SECOND, "--repository"]).arg(fixture.dir.join("repository"));
    run(command.arg("--out").arg(&bundle))?;
    host.keelctl_ok(&["update", "install", "--bundle", bundle.to_str().context("path")?])?;
    let update = host.keelctl_json(&["update", "status"])?;
    ensure!(update["other"]["version"] == SECOND && update["next_boot"] == SECOND, "after the bundle: {update}");
    fs::remove_file(bundle).context("remove the bundle")
}

/// Waits until the least version is this one.
fn minimum(host: &Host, version: &str) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let update = host.keelctl_json(&["update", "status"])?;
        if update["minimum"]["version"] == version {
            return Ok(update);
        }
        ensure!(begun.elapsed() < TPM_LIMIT, "the least version isn't {version}: {update}");
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn off(mut machine: Machine, host: &Host) -> Result<()> {
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(OFF_LIMIT)
}

/// The state partition, the last one, as it was on an earlier copy of the disk; everything else stays.
fn put_state_back(fixture: &Fixture, earlier: &Path) -> Result<()> {
    let (table, disk) = fixture.hardware.partition_table()?;
    let state = table.by_name("state").context("partition state")?;
    let before = File::options().write(true).open(earlier)?;
    io::copy(&mut (&disk).take(state.offset_bytes()), &mut &before).context("copy what comes before the state")?;
    fs::rename(earlier, fixture.hardware.disk()).context("change the disks")
}
