//! A host that updates by itself: withdrawn releases, a pause, and the way into a new release in a window, when it gets
//! the lock of its group; what came of it is reported.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use self::lock_server::LockServer;
use super::fixture::{Fixture, Variant, wait};
use super::update::wait_next_boot;
use crate::build::{Build, FIRST, SECOND, run};
use crate::clients::Host;
use crate::machine::WORKSTATION_IN_GUEST;

#[allow(dead_code, reason = "the updater's own tests use all of it")]
#[path = "../../../updater/tests/support/lock_server.rs"]
mod lock_server;

/// Longest wait for the host's next step.
const STEP_LIMIT: Duration = Duration::from_secs(240);

pub(super) fn by_itself(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "rollout")?;
    // One that is always open; when windows open is tried with a clock of its own.
    fixture.add_config("[[update.window]]\nstart = \"00:00\"\nlength_min = 1440\n");
    let locks = LockServer::start();
    locks.hold("web", "another host");
    let url = locks.url.replace("127.0.0.1", WORKSTATION_IN_GUEST);
    let lines = format!(
        "[update]\nauto = \"install\"\nreboot = \"window\"\ncheck_every_min = 10080\n\
         fleetlock_url = \"{url}\"\nfleetlock_group = \"web\"\nreport_url = \"{url}/outcomes\"\n"
    );
    fixture.configure("[update]\n", &lines);
    fixture.publish(SECOND, Variant::Good)?;
    publisher(&fixture, &["rollout", SECOND, "--wave", "0h=100%"])?;
    publisher(&fixture, &["withdraw", SECOND, "--reason", "it eats disks"])?;
    let (machine, host) = fixture.boot()?;

    let automatic = wait_automatic(&host, "has looked", |automatic| automatic["looked_unix_s"].is_u64())?;
    ensure!(automatic["candidate"] == Value::Null, "a withdrawn release is a candidate: {automatic}");
    let check = host.keelctl_json(&["update", "check"])?;
    let over = check["passed_over"].to_string();
    ensure!(check["available"] == Value::Null && over.contains("it eats disks"), "a withdrawn release: {check}");
    let refused = host.keelctl(&["update", "install", SECOND]).output()?;
    ensure!(!refused.status.success(), "a withdrawn release was installed");

    let paused = host.keelctl_json(&["update", "pause"])?;
    ensure!(paused["automatic"]["paused_unix_s"].is_u64(), "paused: {paused}");
    publisher(&fixture, &["withdraw", SECOND, "--undo"])?;
    let automatic = wait_automatic(&host, "is paused", |it| it["next"].as_str().is_some_and(|s| s.contains("paused")))?;
    ensure!(automatic["candidate"] == Value::Null, "a paused host looks: {automatic}");
    let update = host.keelctl_json(&["update", "status"])?;
    ensure!(update["next_boot"] == FIRST, "a paused host installed something: {update}");

    let before = host.keelctl_json(&["status"])?;
    host.keelctl_ok(&["update", "resume"])?;
    let waiting = wait_automatic(&host, "waits for the lock", |it| it["problem"].to_string().contains("for leave"))?;
    ensure!(waiting["candidate"] == SECOND, "while another host has the lock: {waiting}");
    let status = host.keelctl_json(&["status"])?;
    ensure!(status["boot_id"] == before["boot_id"], "restarted without the lock: {status}");
    locks.release("web");
    let status = wait_next_boot(&machine, &host, &before)?;
    ensure!(status["version"] == SECOND, "after the update by itself: {status}");
    let automatic = wait_automatic(&host, "is through", |it| it["next"] == "look for a newer release")?;
    ensure!(automatic["window"]["open"] == true && automatic["problem"] == Value::Null, "afterwards: {automatic}");
    wait(STEP_LIMIT, || {
        let (held, outcomes) = (locks.held(), locks.outcomes());
        let told = outcomes.iter().any(|it| it["version"] == SECOND && it["outcome"] == "good");
        Ok(if held == 0 && told { Ok(()) } else { Err(format!("{held} locks held; reported: {outcomes:?}")) })
    })
}

/// Runs `keel-image` on the scenario's repository.
fn publisher(fixture: &Fixture, arguments: &[&str]) -> Result<()> {
    let mut command = fixture.build.keel_image();
    command.args(arguments).arg("--repository").arg(fixture.dir.join("repository"));
    run(command.arg("--keys").arg(&fixture.build.keys))
}

/// Waits until what the host does by itself is as wanted.
fn wait_automatic(host: &Host, wanted: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
    wait(STEP_LIMIT, || {
        let automatic = host.keelctl_json(&["update", "status"])?["automatic"].take();
        Ok(if is(&automatic) { Ok(automatic) } else { Err(format!("the host that {wanted}: {automatic}")) })
    })
}
