//! For how long a container's service can't be reached because of an update: through the firmware, and by kexec.
//!
//! QEMU counts the guest's instructions, firmware's included; a page of a web server in a container is asked for until
//! it fails, and then until it comes again. The time in which the guest waits isn't counted, as everywhere.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Figure;
use crate::build::{Build, DISK_BYTES, SECOND};
use crate::clients::{Host, wait_http};
use crate::images;
use crate::machine::{Clock, Hardware, Machine, SNAKEOIL_VARIABLES};
use crate::scenarios::{Fixture, trusted_machine};

/// Updates of each kind that are measured.
const SAMPLES: usize = 2;
/// Longest wait for one answer; QEMU takes connections for a guest that is down, and then nothing comes.
const PROBE_LIMIT: Duration = Duration::from_millis(500);
/// Longest outage, in the workstation's time.
const OUTAGE_LIMIT: Duration = Duration::from_secs(1200);

/// Milliseconds of guest time for both kinds of restart.
pub fn times(build: &Build) -> Result<Vec<Figure>> {
    let fixture = trusted_machine(build, "bench-outage")?;
    let archive = images::busybox(&fixture.dir, "web", "page\n")?;
    let (mut reboot, mut kexec) = (Vec::new(), Vec::new());
    for number in 0..SAMPLES {
        reboot.push(outage(&fixture, &archive, &format!("reboot-{number}"), "--firmware")?);
        kexec.push(outage(&fixture, &archive, &format!("kexec-{number}"), "--kexec")?);
        eprintln!("ms through the firmware: {reboot:.0?}, by kexec: {kexec:.0?}");
    }
    let how = |way: &str| {
        format!(
            "QEMU TCG, -icount shift=0,sleep=off, one processor: instructions from the last answer of a web server in a \
             container before the restart into an installed update to its first after, {way}"
        )
    };
    Ok(vec![
        Figure::new("update_outage_reboot_ms", "ms", None, &how("through the firmware"), reboot),
        Figure::new("update_outage_kexec_ms", "ms", None, &how("without it"), kexec),
    ])
}

fn outage(fixture: &Fixture, archive: &Path, name: &str, way: &str) -> Result<f64> {
    let dir = fixture.dir.join(name);
    let mut hardware = Hardware::with_disk(&fixture.build, &dir, &fixture.hardware.disk(), DISK_BYTES)?;
    hardware.set_variables(SNAKEOIL_VARIABLES)?;
    hardware.config.clone_from(&fixture.hardware.config);
    hardware.clock = Clock::Instructions;
    let machine = hardware.power_on()?;
    let host = Host::of(&fixture.build, &machine)?;
    host.wait_health(&machine, "good", hardware.clock.boot_limit())?;
    host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
    host.docker_ok(&["run", "-d", "--name", "web", "--restart", "unless-stopped", "-p", "8080:80", "web:1"])?;
    let port = machine.port(8080)?;
    wait_http(port, Duration::from_secs(60))?;
    host.install(Some(SECOND))?.finish()?;
    let before = host.keelctl_json(&["status"])?;
    let mut asking = host.keelctl(&["reboot", way]).stdout(Stdio::null()).spawn().context("run keelctl")?;
    let (last, first) = loop {
        let span = (until(&machine, port, false)?, until(&machine, port, true)?);
        // A host that is busy with its end may miss a probe and answer the next.
        if host.keelctl_json(&["status"]).is_ok_and(|status| status["boot_id"] != before["boot_id"]) {
            break span;
        }
    };
    ensure!(asking.wait()?.success(), "keelctl reboot {way} failed");
    let status = host.wait_health(&machine, "good", hardware.clock.boot_limit())?;
    ensure!(status["version"] == SECOND, "after the restart: {status}");
    let through_firmware = machine.console().matches("BdsDxe: starting").count() > 1;
    ensure!(through_firmware == (way == "--firmware"), "{way} took the other way");
    drop(machine);
    std::fs::remove_dir_all(dir)?;
    Ok(first.saturating_sub(last) as f64 / 1e6)
}

/// Asks until the page comes, or until it doesn't. Returns the instructions that had been executed then: at the answer,
/// or at the last one before it stayed away.
fn until(machine: &Machine, port: u16, comes: bool) -> Result<u64> {
    let begun = Instant::now();
    let mut last = machine.instructions()?;
    while begun.elapsed() < OUTAGE_LIMIT {
        let came = probe(port).is_ok();
        let now = machine.instructions()?;
        match (came, comes) {
            (true, true) => return Ok(now),
            (false, false) => return Ok(last),
            (true, false) => last = now,
            (false, true) => {}
        }
    }
    anyhow::bail!("the page {} within {OUTAGE_LIMIT:?}", if comes { "didn't come" } else { "never stayed away" })
}

fn probe(port: u16) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), PROBE_LIMIT)?;
    stream.set_read_timeout(Some(PROBE_LIMIT))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer)?;
    ensure!(answer.ends_with(b" 200"), "the server answers something else");
    Ok(())
}
