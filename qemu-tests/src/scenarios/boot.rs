//! From firmware to the API, and off again.

use std::time::Duration;

use anyhow::{Result, ensure};
use keel_spec::disk::reserve_bytes;

use super::fixture::Fixture;
use crate::build::{Build, DISK_BYTES, FIRST};
use crate::machine::Machine;

pub(super) fn to_api(build: &Build) -> Result<()> {
    let fixture = Fixture::new(build, "boot")?;
    let (mut machine, host) = fixture.boot()?;
    let status = host.keelctl_json(&["status"])?;
    ensure!(status["version"] == FIRST && status["slot"] == "a", "status: {status}");
    ensure!(status["problems"].as_array().is_some_and(Vec::is_empty), "problems at first boot: {status}");
    let times: Vec<u64> =
        status["stages"].as_array().into_iter().flatten().filter_map(|stage| stage["at_ms"].as_u64()).collect();
    ensure!(times.len() >= 4 && times.is_sorted(), "boot stages with times: {status}");

    let services = host.keelctl_json(&["services"])?;
    for name in ["provision", "network", "runtime", "updater"] {
        let service = services.as_array().into_iter().flatten().find(|service| service["name"] == name);
        ensure!(service.is_some_and(|service| service["state"] == "up"), "service {name}: {services}");
    }
    let log = host.keelctl_ok(&["logs", "provision"])?;
    ensure!(log.contains("state"), "log of provision says nothing of the state partition's growth: {log}");

    let version = host.docker_ok(&["version", "--format", "{{.Server.Os}}/{{.Server.Arch}}"])?;
    ensure!(version == "linux/amd64", "docker version: {version}");
    let total = host.docker_ok(&["info", "--format", "{{.NCPU}} {{.MemTotal}}"])?;
    ensure!(total.split(' ').all(|part| part.parse::<u64>().is_ok_and(|n| n > 0)), "docker info: {total}");

    machine.wait_console("export DOCKER_HOST=tcp://", 0, Duration::from_secs(30))?;
    let console = machine.console();
    for needed in [FIRST, "10.0.2.15", "DOCKER_TLS_VERIFY=1", "DOCKER_CERT_PATH=", "keelctl"] {
        ensure!(console.contains(needed), "panel doesn't show {needed:?}:\n{console}");
    }
    let (table, _) = fixture.hardware.partition_table()?;
    let end_bytes = table.by_name("state").map_or(0, |state| state.offset_bytes() + state.size_bytes());
    let free_bytes = DISK_BYTES - end_bytes;
    let wanted = reserve_bytes(DISK_BYTES)..reserve_bytes(DISK_BYTES) + (2 << 20);
    ensure!(wanted.contains(&free_bytes), "{free_bytes} bytes are free behind the state partition, not {wanted:?}");
    at_the_prompt(&mut machine)?;
    machine.wait_off(Duration::from_secs(90))
}

/// What the console shows when it takes a line.
const PROMPT: &str = "keel> ";

/// What an operator types at the console, without a client or a certificate.
fn at_the_prompt(machine: &mut Machine) -> Result<()> {
    let limit = Duration::from_secs(60);
    machine.wait_console(PROMPT, 0, limit)?;
    for (line, answers) in [
        ("keelctl status", &[FIRST, "good"][..]),
        ("services --json", &["\"provision\""]),
        ("ps", &["IMAGE"]),
        ("nonsense", &["nonsense", "exit code"]),
    ] {
        let shown = machine.type_line(line, PROMPT, limit)?;
        ensure!(answers.iter().all(|answer| shown.contains(answer)), "{line:?}, typed at the console, shows: {shown}");
    }
    machine.type_line("poweroff", "Power down", limit).map(drop)
}
