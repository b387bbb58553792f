//! From one release to the next and back, with a container on top.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::fixture::{BOOT_LIMIT, Fixture, Variant, wait};
use crate::build::{Build, FIRST, SECOND};
use crate::clients::{Host, wait_http};
use crate::images;
use crate::machine::Machine;

pub(super) fn there_and_back(build: &Build) -> Result<()> {
    let fixture = Fixture::new(build, "update-and-back")?;
    fixture.publish(SECOND, Variant::Good)?;
    let (mut machine, host) = fixture.boot()?;
    let archive = images::busybox(&fixture.dir, "web", "still here\n")?;
    host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
    host.docker_ok(&["run", "-d", "--name", "web", "--restart", "unless-stopped", "-p", "8080:80", "web:1"])?;
    host.docker_ok(&["run", "-d", "--name", "stopped", "--restart", "unless-stopped", "web:1"])?;
    host.docker_ok(&["stop", "-t", "1", "stopped"])?;
    host.docker_ok(&["run", "-d", "--name", "never", "web:1"])?;
    wait_http(machine.port(8080)?, Duration::from_secs(60))?;

    let check = host.keelctl_json(&["update", "check"])?;
    ensure!(check["running"] == FIRST && check["available"] == SECOND, "update check: {check}");
    let plan = host.keelctl_json(&["update", "plan"])?;
    let fetch = plan["fetch_bytes"].as_u64().unwrap_or_default();
    ensure!(plan["version"] == SECOND && plan["slot"] == "b" && fetch > 0, "update plan: {plan}");
    ensure!(plan["write_bytes"].as_u64() > plan["fetch_bytes"].as_u64(), "what is on the disk is fetched: {plan}");
    host.install(None)?.finish()?;
    let update = host.keelctl_json(&["update", "status"])?;
    ensure!(update["other"]["version"] == SECOND && update["next_boot"] == SECOND, "after the install: {update}");
    ensure!(wait_http(machine.port(8080)?, Duration::from_secs(30))? == "still here\n", "page during the install");

    let status = reboot(&mut machine, &host)?;
    ensure!(status["version"] == SECOND && status["slot"] == "b", "after the update: {status}");
    containers_are_back(&machine, &host)?;
    trial_is_over(&host)?;
    host.keelctl_fails(&["update", "install"], 17)?;

    let back = host.keelctl_json(&["update", "rollback"])?;
    ensure!(back["next_boot"] == FIRST, "rollback: {back}");
    let status = reboot(&mut machine, &host)?;
    ensure!(status["version"] == FIRST && status["slot"] == "a", "after the rollback: {status}");
    ensure!(status["bad_releases"] == Value::Array(vec![]), "a rollback on request isn't a failure: {status}");
    containers_are_back(&machine, &host)?;
    history_and_metrics(&host)
}

/// PID 1 learns of it first, and the updater then writes it to the EFI system partition.
pub(super) fn trial_is_over(host: &Host) -> Result<()> {
    wait(Duration::from_secs(60), || {
        let update = host.keelctl_json(&["update", "status"])?;
        let is_over = update["on_trial"] == false && update["other"]["state"] == "good";
        Ok(is_over.then_some(()).ok_or_else(|| format!("after the trial: {update}")))
    })
}

/// What is said afterwards of the three boots.
fn history_and_metrics(host: &Host) -> Result<()> {
    let boots = host.keelctl_json(&["boots"])?;
    let of = |key: &dyn Fn(&Value) -> Value| boots.as_array().into_iter().flatten().map(key).collect::<Vec<_>>();
    ensure!(of(&|boot| boot["number"].clone()) == [3, 2, 1], "boots: {boots}");
    ensure!(of(&|boot| boot["version"].clone()) == [FIRST, SECOND, FIRST], "boots: {boots}");
    ensure!(of(&|boot| boot["end"]["cause"].clone())[1..] == ["rollback", "update"], "boots: {boots}");
    ensure!(boots[1]["trial"]["outcome"] == "passed", "the trial of the second boot: {boots}");
    let log = host.keelctl_ok(&["boots", "2"])?;
    ensure!(log.contains(SECOND) && log.lines().count() > 3, "the second boot with its last lines: {log}");
    let metrics = host.get("/keel/v1/metrics")?;
    for line in ["keel_boots_total 3", "keel_boots_ended{cause=\"update\"} 1", "keel_on_trial 0", "keel_bad_releases 0"]
    {
        ensure!(metrics.lines().any(|it| it == line), "no {line:?} in the metrics:\n{metrics}");
    }
    Ok(())
}

/// Restart policies hold across a reboot.
fn containers_are_back(machine: &Machine, host: &Host) -> Result<()> {
    wait_http(machine.port(8080)?, Duration::from_secs(60)).context("the web server after the reboot")?;
    let running = host.docker_ok(&["ps", "--format", "{{.Names}}"])?;
    ensure!(running == "web", "running after the reboot: {running:?}");
    Ok(())
}

/// Reboots through `keelctl` and waits until the machine is healthy again, with another boot ID.
pub(super) fn reboot(machine: &mut Machine, host: &Host) -> Result<Value> {
    let before = host.keelctl_json(&["status"])?;
    host.keelctl_ok(&["reboot"])?;
    wait_next_boot(machine, host, &before)
}

/// Waits until the machine is healthy in another boot than that of `before`.
pub(super) fn wait_next_boot(machine: &Machine, host: &Host, before: &Value) -> Result<Value> {
    wait(BOOT_LIMIT, || {
        let status = host.wait_health(machine, "good", BOOT_LIMIT)?;
        let is_another = status["boot_id"] != before["boot_id"];
        Ok(if is_another { Ok(status) } else { Err(format!("the machine didn't reboot: {status}")) })
    })
}
