//! The mission in about two minutes: boots Keel, updates it while it serves, breaks it four ways, and shows the state
//! after each step.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use keel_qemu_tests::build::{Build, FIRST, SECOND};
use keel_qemu_tests::clients::{Host, wait_http};
use keel_qemu_tests::images;
use keel_qemu_tests::machine::Machine;
use keel_qemu_tests::repository::Fault;
use keel_qemu_tests::scenarios::{Fixture, Variant, prepare_releases};
use serde_json::Value;

/// Longest wait for any one step; a fallback under software emulation takes about a minute.
const STEP_LIMIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nkeel-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The demonstration's state: when it began, and the step it is at.
struct Demo {
    begun: Instant,
    step: u32,
    host: Host,
    machine: Machine,
}

fn run() -> Result<()> {
    let build = Build::here()?;
    println!("preparing releases: {FIRST}, {SECOND}, and three that are broken on purpose");
    let releases = [
        (SECOND, Variant::Good),
        ("0.3.0", Variant::PanicInit),
        ("0.4.0", Variant::NeverReady),
        ("0.5.0", Variant::HangInit),
    ];
    prepare_releases(&build, &releases)?;
    let mut fixture = Fixture::new(&build, "demo")?;
    // One try for each release instead of three, and a shorter health gate, so that an onlooker needn't wait.
    fixture.one_try();
    fixture.hardware.config = fixture.hardware.config.replace("within_s = 90", "within_s = 30");
    let page = images::busybox(&fixture.dir, "web", "Hello from a container on Keel\n")?;

    let begun = Instant::now();
    println!("\n1. boot: firmware, boot loader, signed kernel image, verified root, API");
    let machine = fixture.hardware.power_on()?;
    let host = Host::of(&build, &machine)?;
    host.wait_health(&machine, "good", STEP_LIMIT)?;
    let mut demo = Demo { begun, step: 1, host, machine };
    demo.show_state()?;
    demo.serve(page.to_str().context("path of the image")?)?;
    fixture.publish(SECOND, Variant::Good)?;
    demo.update(SECOND)?;
    let reasons = [
        ("a release whose PID 1 panics", releases[1]),
        ("a release whose required service never becomes healthy", releases[2]),
        ("a release that hangs", releases[3]),
    ];
    for (what, (version, variant)) in reasons {
        fixture.publish(version, variant)?;
        demo.bad_release(what, version)?;
    }
    fixture.publish("0.6.0", Variant::Good)?;
    fixture.server.set_fault("keel-cloud-0.6.0.root", Some(Fault::FlipBlocks));
    demo.refused("a tampered release: bits of its root image are flipped", None)?;
    demo.refused("an older release", Some(FIRST))?;
    demo.say("power off");
    demo.host.keelctl_ok(&["poweroff"])?;
    demo.machine.wait_off(STEP_LIMIT)?;
    println!("   done in {:.0} s", begun.elapsed().as_secs_f32());
    Ok(())
}

impl Demo {
    fn say(&mut self, what: &str) {
        self.step += 1;
        println!("\n{}. {what}   ({:.0} s)", self.step, self.begun.elapsed().as_secs_f32());
    }

    fn show_state(&self) -> Result<Value> {
        let status = self.host.keelctl_json(&["status"])?;
        let text = |key: &str| status[key].as_str().unwrap_or("?").to_owned();
        println!("   release {}, slot {}, health {}", text("version"), text("slot"), text("health"));
        for bad in status["bad_releases"].as_array().into_iter().flatten() {
            println!("   left: {}: {}", bad["version"].as_str().unwrap_or("?"), bad["reason"].as_str().unwrap_or("?"));
        }
        Ok(status)
    }

    fn show_page(&self) -> Result<()> {
        let port = self.machine.port(8080)?;
        let page = wait_http(port, STEP_LIMIT)?;
        println!("   GET http://127.0.0.1:{port}/ -> {}", page.trim());
        Ok(())
    }

    fn serve(&mut self, archive: &str) -> Result<()> {
        self.say("a web server container: docker load, docker run -d --restart always -p 8080:80");
        self.host.docker_ok(&["load", "-i", archive])?;
        self.host.docker_ok(&[
            "run",
            "-d",
            "--name",
            "web",
            "--restart",
            "always",
            "--stop-timeout",
            "1",
            "-p",
            "8080:80",
            "web:1",
        ])?;
        self.show_page()
    }

    fn update(&mut self, version: &str) -> Result<()> {
        self.say(&format!("release {version} is installed while the container serves"));
        self.host.install(None)?.finish()?;
        self.show_page()?;
        self.say("reboot into the other slot; the trial passes, the container is back");
        self.reboot_until(version, None)
    }

    fn bad_release(&mut self, what: &str, version: &str) -> Result<()> {
        self.say(&format!("{what} ({version}): installed, tried, left"));
        self.host.install(None)?.finish()?;
        self.reboot_until(SECOND, Some(version))
    }

    /// Reboots and waits until `version` runs and is healthy again and, if named, `bad` is known to be bad.
    fn reboot_until(&mut self, version: &str, bad: Option<&str>) -> Result<()> {
        let before = self.host.keelctl_json(&["status"])?;
        self.host.keelctl_ok(&["reboot"])?;
        let begun = Instant::now();
        loop {
            let status = self.host.wait_health(&self.machine, "good", STEP_LIMIT)?;
            let named = bad.is_none_or(|bad| status["bad_releases"][0]["version"] == bad);
            if status["boot_id"] != before["boot_id"] && status["version"] == version && named {
                break;
            }
            if begun.elapsed() > STEP_LIMIT {
                bail!("not back on {version} after {STEP_LIMIT:?}: {status}");
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        self.show_state()?;
        self.show_page()
    }

    fn refused(&mut self, what: &str, version: Option<&str>) -> Result<()> {
        self.say(&format!("{what}: refused"));
        let arguments: Vec<&str> = ["update", "install"].into_iter().chain(version).collect();
        let output = self.host.keelctl(&arguments).output()?;
        ensure!(!output.status.success(), "it was accepted");
        println!("   {}", String::from_utf8_lossy(&output.stderr).trim());
        let status = self.show_state()?;
        ensure!(status["version"] == SECOND, "the running release changed: {status}");
        self.show_page()
    }
}
