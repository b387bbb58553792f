//! What the host programs hold in memory, and the smallest guest that works.

use std::time::Duration;

use anyhow::{Context, Result};

use super::Figure;
use crate::build::{Build, DISK_BYTES};
use crate::clients::Host;
use crate::images;
use crate::machine::Hardware;
use crate::scenarios::Fixture;

/// Sizes of memory that are tried, in MiB, largest first.
const SIZES_MIB: [u32; 9] = [512, 384, 320, 256, 224, 192, 160, 128, 96];

/// Proportional set sizes of all host programs, and the resident set of PID 1, 60 s after boot.
pub fn idle(build: &Build) -> Result<Vec<Figure>> {
    let fixture = Fixture::new(build, "bench-memory")?;
    let (_machine, host) = fixture.boot()?;
    let archive = images::busybox(&fixture.dir, "web", "page\n")?;
    host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
    // The figure is defined as that of 60 s after boot; this wait is the measurement's, not a synchronisation.
    let up = host.keelctl_json(&["status"])?["uptime_ms"].as_u64().context("uptime")?;
    std::thread::sleep(Duration::from_millis(60_000u64.saturating_sub(up)));

    let services = host.keelctl_json(&["services"])?;
    let pids: Vec<String> = services
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|service| service["pid"].as_u64())
        .chain([1])
        .map(|pid| pid.to_string())
        .collect();
    let mut total = 0.0;
    for pid in &pids {
        total += read_kib(&host, &format!("/proc/{pid}/smaps_rollup"), "Pss:")?;
    }
    let resident = read_kib(&host, "/proc/1/status", "VmRSS:")?;
    let how = "sum of Pss in smaps_rollup of PID 1 and all services, 60 s after boot, no container running before";
    Ok(vec![
        Figure::new("idle_memory_kib", "KiB", Some(40_960.0), how, vec![total]),
        Figure::new("pid1_rss_kib", "KiB", Some(2048.0), "VmRSS of PID 1, 60 s after boot", vec![resident]),
    ])
}

/// A line of a host process's file under `/proc`, read by a privileged container in the host's PID namespace.
fn read_kib(host: &Host, path: &str, field: &str) -> Result<f64> {
    let text = host.docker_ok(&["run", "--rm", "--privileged", "--pid=host", "web:1", "cat", path])?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("{field} in {path}"))?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// Least memory with which a guest boots and runs one container.
pub fn smallest_guest(build: &Build) -> Result<Vec<Figure>> {
    let fixture = Fixture::new(build, "bench-smallest")?;
    let archive = images::busybox(&fixture.dir, "web", "page\n")?;
    let mut smallest = None;
    for size in SIZES_MIB {
        let mut hardware =
            Hardware::with_disk(build, &fixture.dir.join(format!("{size}")), &fixture.hardware.disk(), DISK_BYTES)?;
        hardware.config = fixture.hardware.config.clone();
        hardware.memory_mib = size;
        match works(build, &hardware, archive.to_str().context("path")?) {
            Ok(()) => smallest = Some(size),
            Err(error) => {
                println!("{size} MiB don't suffice: {}", error.to_string().lines().next().unwrap_or_default());
                break;
            }
        }
    }
    let smallest = smallest.context("no size of memory sufficed")?;
    let how = format!("boots, loads an image and runs one container; sizes tried: {SIZES_MIB:?}");
    Ok(vec![Figure::new("smallest_guest_mib", "MiB", Some(128.0), &how, vec![smallest.into()])])
}

fn works(build: &Build, hardware: &Hardware, archive: &str) -> Result<()> {
    let machine = hardware.power_on()?;
    let host = Host::of(build, &machine)?;
    host.wait_health(&machine, "good", Duration::from_secs(90))?;
    host.docker_ok(&["load", "-i", archive])?;
    host.docker_ok(&["run", "--rm", "web:1", "true"])?;
    Ok(())
}
