//! Guest time of a boot, counted in instructions.
//!
//! QEMU's `-icount shift=0,sleep=off` gives the guest a clock of one nanosecond an instruction. While the guest is idle
//! that clock jumps to the next timer, so idle time, which PID 1 notes beside each stage, is taken off.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Figure;
use crate::build::Build;
use crate::images;
use crate::machine::{Clock, Machine};
use crate::scenarios::Fixture;

/// Boots that are measured; the first of a machine, which grows the disk, isn't.
const SAMPLES: usize = 5;

/// Milliseconds of guest time: the floor (kernel alone), the API, the first container.
pub fn times(build: &Build) -> Result<Vec<Figure>> {
    let mut fixture = Fixture::new(build, "bench-boot")?;
    prepare(&fixture)?;
    fixture.hardware.clock = Clock::Instructions;
    let (mut floor, mut api, mut container) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let (machine, host) = fixture.boot()?;
        host.docker_ok(&["wait", "first"])?;
        let status = host.keelctl_json(&["status"])?;
        let init = busy_ms(&status, "kernel handed over to stage 1")?;
        floor.push(init);
        api.push(busy_ms(&status, "service runtime is up")? - init);
        container.push(busy_ms(&status, "first container")? + lifetime_ms(&host)? - init);
        off(machine, &host)?;
    }
    let how =
        "QEMU TCG, -icount shift=0,sleep=off, one processor, through firmware; busy guest time at stages of PID 1";
    let container_how =
        "the same, to the start of the first container that comes back at boot, plus its recorded lifetime";
    Ok(vec![
        Figure::new("boot_init_ms", "ms", None, how, floor),
        Figure::new("boot_api_over_floor_ms", "ms", Some(350.0), how, api),
        Figure::new("boot_first_container_over_floor_ms", "ms", Some(500.0), container_how, container),
    ])
}

/// First boot: the disk grows, an image is loaded, and a container is left that runs `true` at every boot.
fn prepare(fixture: &Fixture) -> Result<()> {
    let (machine, host) = fixture.boot()?;
    let archive = images::busybox(&fixture.dir, "web", "page\n")?;
    host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
    host.docker_ok(&["run", "-d", "--name", "first", "--restart", "unless-stopped", "web:1", "sh", "-c", "exit 0"])?;
    off(machine, &host)
}

fn off(mut machine: Machine, host: &crate::clients::Host) -> Result<()> {
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Clock::Instructions.boot_limit())
}

/// Milliseconds from the recorded start of the container `first` to its end.
fn lifetime_ms(host: &crate::clients::Host) -> Result<f64> {
    let times = host.docker_ok(&["inspect", "-f", "{{.State.StartedAt}} {{.State.FinishedAt}}", "first"])?;
    let (started, finished) = times.split_once(' ').context("two times")?;
    let lifetime = seconds_of_day(finished)? - seconds_of_day(started)?;
    ensure!(lifetime > 0.0, "the container that comes back at boot hasn't ended: {times}");
    Ok(lifetime * 1000.0)
}

/// The time of day in `2026-01-02T03:04:05.678901Z`, in seconds.
fn seconds_of_day(time: &str) -> Result<f64> {
    let clock = time.split_once('T').context("a time of day")?.1.trim_end_matches('Z');
    clock.split(':').try_fold(0.0, |sum, part| Ok(sum * 60.0 + part.parse::<f64>()?))
}

/// Milliseconds since kernel start at which a stage was done, less those that the processor was idle.
fn busy_ms(status: &Value, stage: &str) -> Result<f64> {
    let found = status["stages"].as_array().into_iter().flatten().find(|entry| entry["name"] == stage);
    let found = found.with_context(|| format!("no boot stage {stage:?} in {}", status["stages"]))?;
    let number = |key: &str| found[key].as_f64().with_context(|| format!("{key} of stage {stage:?}"));
    Ok(number("at_ms")? - number("idle_ms")?)
}
