//! From firmware to the API, and off again.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::fixture::Fixture;
use crate::build::{Build, DISK_BYTES, FIRST};

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
    ensure!(
        state_partition_end(&fixture)? + (2 << 20) > DISK_BYTES,
        "the state partition didn't grow to the end of the disk"
    );
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(90))
}

/// Last byte of the state partition, as the primary partition table says.
fn state_partition_end(fixture: &Fixture) -> Result<u64> {
    use std::os::unix::fs::FileExt;
    let disk = std::fs::File::open(fixture.hardware.disk())?;
    let mut primary = vec![0; 34 * 512];
    disk.read_exact_at(&mut primary, 0)?;
    let mut backup = vec![0; 33 * 512];
    disk.read_exact_at(&mut backup, DISK_BYTES - 33 * 512)?;
    let (table, _) = keel_spec::gpt::Table::read(&primary, &backup)?;
    let state = table.entries.iter().find(|entry| entry.name == "state");
    Ok(state.map_or(0, |entry| (entry.last_lba + 1) * 512))
}
