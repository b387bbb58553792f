//! Releases that aren't good: the machine leaves each by itself and says why.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::fixture::{Fixture, Variant, release, wait};
use crate::build::{Build, FIRST, SECOND};
use crate::machine::tail;

/// Longest wait for a fallback: three tries, each with its time-out, with another machine beside this one.
const FALLBACK_LIMIT: Duration = Duration::from_secs(900);

pub(super) fn panic(build: &Build) -> Result<()> {
    falls_back(&Fixture::new(build, "fallback-panic")?, Variant::PanicInit, &["panic"])
}

pub(super) fn hang(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "fallback-hang")?;
    fixture.one_try();
    falls_back(&fixture, Variant::HangInit, &["watchdog"])
}

pub(super) fn unhealthy(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "fallback-unhealthy")?;
    fixture.one_try();
    falls_back(&fixture, Variant::NeverReady, &["runtime"])
}

pub(super) fn unconnected(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "fallback-network")?;
    fixture.one_try();
    fixture.configure("within_s = 90", "within_s = 45");
    falls_back(&fixture, Variant::NoNetwork, &["network"])
}

/// Installs a bad release, reboots, and waits for the good one to come back and to name the bad one and its reason.
fn falls_back(fixture: &Fixture, variant: Variant, reasons: &[&str]) -> Result<()> {
    fixture.publish(SECOND, variant)?;
    let (machine, host) = fixture.boot()?;
    host.install(None)?.finish()?;
    host.keelctl_ok(&["reboot"])?;
    let status = wait_fallback(&host, &machine, FIRST)?;
    let bad = &status["bad_releases"][0];
    let reason = bad["reason"].as_str().unwrap_or_default();
    ensure!(bad["version"] == SECOND, "bad release: {status}");
    ensure!(reasons.iter().any(|wanted| reason.contains(wanted)), "reason {reason:?} names none of {reasons:?}");
    let message = host.keelctl_fails(&["update", "install", SECOND], 16)?;
    ensure!(message.contains(SECOND) && message.contains(reason), "refusal of a known bad release: {message}");
    let check = host.keelctl_json(&["update", "check"])?;
    ensure!(check["available"] == Value::Null && check["passed_over"][0][0] == SECOND, "check: {check}");
    Ok(())
}

/// Waits until a good release runs again and names a bad one.
pub(super) fn wait_fallback(
    host: &crate::clients::Host,
    machine: &crate::machine::Machine,
    good: &str,
) -> Result<Value> {
    let back = wait(FALLBACK_LIMIT, || {
        Ok(host.keelctl_json(&["status"]).map_err(|error| format!("no fallback: {error:#}")).and_then(|status| {
            let named = status["bad_releases"].as_array().is_some_and(|bad| !bad.is_empty());
            let is_back = status["version"] == good && named && status["health"] == "good";
            if is_back { Ok(status) } else { Err(format!("no fallback: {status}")) }
        }))
    });
    back.with_context(|| format!("console:\n{}", tail(&machine.console())))
}

pub(super) fn flipped_bit(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "fallback-rot")?;
    fixture.one_try();
    fixture.publish(SECOND, Variant::Good)?;
    let (mut machine, host) = fixture.boot()?;
    host.install(None)?.finish()?;
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(90))?;
    drop(machine);
    let root = release(build, SECOND, Variant::Good)?.join(format!("keel-cloud-{SECOND}.root"));
    let offset = offset_of_program(&root, "/usr/lib/keel/runtime")?;
    flip_bit_of_slot_b(&fixture, offset)?;
    let machine = fixture.hardware.power_on()?;
    let host = crate::clients::Host::of(build, &machine)?;
    let status = wait_fallback(&host, &machine, FIRST)?;
    ensure!(status["bad_releases"][0]["version"] == SECOND, "bad release: {status}");
    Ok(())
}

/// A byte of the image in which a program's first extent lies, as `dump.erofs` tells.
fn offset_of_program(root: &std::path::Path, program: &str) -> Result<u64> {
    let output = Command::new("dump.erofs")
        .args(["-e", &format!("--path={program}")])
        .arg(root)
        .output()
        .context("run dump.erofs: is the package erofs-utils installed?")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // ` Ext:   logical offset   |  length :     physical offset    |  length`
    let extent = text.lines().find(|line| line.trim_start().starts_with("0:")).context("an extent of the program")?;
    let physical = extent.rsplit(':').next().and_then(|part| part.split("..").next());
    let offset: u64 = physical.context("its physical offset")?.trim().parse().with_context(|| text.clone())?;
    Ok(offset + 16)
}

/// Turns one bit of the other slot's root partition round.
fn flip_bit_of_slot_b(fixture: &Fixture, offset: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let (table, disk) = fixture.hardware.partition_table()?;
    let at = table.by_name("root-b").context("partition root-b")?.offset_bytes() + offset;
    let mut byte = [0];
    disk.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1;
    disk.write_all_at(&byte, at)?;
    Ok(())
}
