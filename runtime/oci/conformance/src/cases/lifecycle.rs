//! create, start, state, kill, delete, and their errors.

use std::fs;

use anyhow::{Result, bail, ensure};
use serde_json::json;

use crate::case::{Case, same};
use crate::lab::Lab;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("lifecycle.create-does-not-run-the-program", "runtime.md#create", create_does_not_run),
    Case::new("lifecycle.state-of-a-created-container", "runtime.md#state", state_created),
    Case::new("lifecycle.state-of-a-running-container", "runtime.md#state", state_running),
    Case::new("lifecycle.state-of-a-stopped-container", "runtime.md#state", state_stopped),
    Case::new("lifecycle.state-holds-annotations", "runtime.md#state", state_annotations),
    Case::new("lifecycle.state-of-an-unknown-container", "runtime.md#query-state", state_unknown),
    Case::new("lifecycle.an-id-is-unique", "runtime.md#create", id_unique),
    Case::new("lifecycle.an-id-cannot-be-a-path", "runtime.md#create", id_path),
    Case::new("lifecycle.an-id-can-be-used-again", "runtime.md#delete", id_again),
    Case::new("lifecycle.create-needs-an-id", "runtime.md#create", create_needs_id),
    Case::new("lifecycle.create-needs-a-bundle", "runtime.md#create", create_needs_bundle),
    Case::new("lifecycle.create-needs-a-config", "bundle.md", create_needs_config),
    Case::new("lifecycle.create-needs-json", "config.md", create_needs_json),
    Case::new("lifecycle.a-later-config-changes-nothing", "runtime.md#create", config_changed),
    Case::new("lifecycle.start-of-an-unknown-container", "runtime.md#start", start_unknown),
    Case::new("lifecycle.start-twice", "runtime.md#start", start_twice),
    Case::new("lifecycle.start-of-a-stopped-container", "runtime.md#start", start_stopped),
    Case::new("lifecycle.kill-sends-the-signal", "runtime.md#kill", kill_signal),
    Case::new("lifecycle.kill-takes-names-and-numbers", "runtime.md#kill", kill_names),
    Case::new("lifecycle.kill-sends-sigterm-by-default", "other runtimes", kill_default),
    Case::new("lifecycle.kill-refuses-unknown-signals", "runtime.md#kill", kill_bad_signal),
    Case::new("lifecycle.kill-of-a-created-container", "runtime.md#kill", kill_created),
    Case::new("lifecycle.kill-of-a-stopped-container", "runtime.md#kill", kill_stopped),
    Case::new("lifecycle.kill-of-an-unknown-container", "runtime.md#kill", kill_unknown),
    Case::new("lifecycle.delete-of-a-running-container", "runtime.md#delete", delete_running),
    Case::new("lifecycle.delete-of-a-created-container", "runtime.md#delete", delete_created),
    Case::new("lifecycle.delete-of-a-stopped-container", "runtime.md#delete", delete_stopped),
    Case::new("lifecycle.delete-of-an-unknown-container", "runtime.md#delete", delete_unknown),
    Case::new("lifecycle.delete-force-of-a-running-container", "other runtimes", delete_force_running),
    Case::new("lifecycle.delete-force-of-a-created-container", "other runtimes", delete_force_created),
    Case::new("lifecycle.delete-force-of-an-unknown-container", "other runtimes", delete_force_unknown),
    Case::new("lifecycle.the-program-ends-the-container", "runtime.md#lifecycle", program_ends),
    Case::new("lifecycle.process-is-needed-to-start-only", "config.md#process", without_process),
];

fn create_does_not_run(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([["create", "/work/ran", ""], ["see"]]))?;
    same!(container.printed()?, "", "output before `start`");
    ensure!(!lab.bundle.inside("work/ran").exists(), "the program ran before `start`");
    container.start()?;
    container.answers()?.ok(1)?;
    ensure!(lab.bundle.inside("work/ran").exists(), "the program didn't run");
    Ok(())
}

fn state_created(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    let state = container.state()?;
    same!(state["status"], "created", "status");
    same!(state["id"], container.id.as_str(), "id");
    same!(state["pid"], container.pid, "pid");
    same!(state["bundle"], lab.bundle_path().as_str(), "bundle");
    ensure!(state["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "ociVersion: {}", state["ociVersion"]);
    container.start()?;
    container.answers().map(drop)
}

fn state_running(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let state = container.state()?;
    same!(state["status"], "running", "status");
    same!(state["pid"], container.pid, "pid");
    container.finish()
}

fn state_stopped(lab: &Lab) -> Result<()> {
    let container = lab.start(&lab.spec(), json!([["exit", 3]]))?;
    same!(container.wait()?, 3, "exit code");
    let state = container.state()?;
    same!(state["status"], "stopped", "status");
    same!(state["id"], container.id.as_str(), "id");
    container.delete()
}

fn state_annotations(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/annotations", json!({ "org.example.key": "value", "other": "" }));
    let container = lab.create(&spec, json!([]))?;
    let annotations = &container.state()?["annotations"];
    same!(annotations["org.example.key"], "value", "annotation");
    same!(annotations["other"], "", "empty annotation");
    container.finish()
}

fn state_unknown(lab: &Lab) -> Result<()> {
    lab.call_refused(&["state", "no-such-container"]).map(drop)
}

fn id_unique(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([["see"]]))?;
    lab.call_refused(&["create", "--bundle", &lab.bundle_path(), &container.id])?;
    same!(container.status()?, "created", "status of the first after a second was refused");
    container.start()?;
    container.answers()?.ok(0).map(drop)
}

fn id_path(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    for id in ["../escape", "a/b", "", "/", ".", ".."] {
        let output = lab.call(&["run", "--bundle", &lab.bundle_path(), id])?;
        ensure!(output.code != 0, "the ID {id:?} was accepted");
    }
    ensure!(!lab.dir.join("escape").exists(), "an ID led out of the state folder");
    Ok(())
}

fn id_again(lab: &Lab) -> Result<()> {
    for _ in 0..2 {
        lab.bundle.configure(&lab.spec())?;
        let container = crate::container::Container::create(lab, &lab.token, &[])?;
        lab.ids.borrow_mut().push(lab.token.clone());
        container.finish()?;
    }
    Ok(())
}

fn create_needs_id(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    lab.call_refused(&["create", "--bundle", &lab.bundle_path()]).map(drop)
}

fn create_needs_bundle(lab: &Lab) -> Result<()> {
    lab.call_refused(&["create", "--bundle", "/no/such/folder", &lab.new_id()]).map(drop)
}

fn create_needs_config(lab: &Lab) -> Result<()> {
    let said = lab.call_refused(&["create", "--bundle", &lab.bundle_path(), &lab.new_id()])?;
    ensure!(said.contains("config.json"), "the message doesn't name config.json: {said}");
    Ok(())
}

fn create_needs_json(lab: &Lab) -> Result<()> {
    for text in ["", "{", "[]", "\"text\"", "{\"ociVersion\": 5}"] {
        fs::write(lab.bundle.dir.join("config.json"), text)?;
        let output = lab.call(&["create", "--bundle", &lab.bundle_path(), &lab.new_id()])?;
        ensure!(output.code != 0, "config.json with the text {text:?} was accepted");
    }
    Ok(())
}

fn config_changed(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec().set("/process/cwd", json!("/work")), json!([["see"]]))?;
    lab.bundle.configure(&lab.spec().set("/process/args", json!(["/no/such/program"])))?;
    container.start()?;
    same!(container.answers()?.ok(0)?["cwd"], "/work", "cwd");
    Ok(())
}

fn start_unknown(lab: &Lab) -> Result<()> {
    lab.call_refused(&["start", "no-such-container"]).map(drop)
}

fn start_twice(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    lab.call_refused(&["start", &container.id])?;
    same!(container.status()?, "running", "status after the second `start`");
    ensure!(container.alive(), "the second `start` ended the container");
    container.finish()
}

fn start_stopped(lab: &Lab) -> Result<()> {
    let container = lab.start(&lab.spec(), json!([]))?;
    container.wait()?;
    lab.call_refused(&["start", &container.id])?;
    same!(container.status()?, "stopped", "status after the second `start`");
    container.delete()
}

fn kill_signal(lab: &Lab) -> Result<()> {
    // A first process ignores what it has no handler for, except from outside its PID namespace: SIGKILL.
    let (container, _) = lab.hold(&lab.spec().without_namespace("pid"), json!([]))?;
    container.kill("USR1")?;
    same!(container.wait()?, 128 + 10, "exit code after SIGUSR1");
    same!(container.status()?, "stopped", "status");
    container.delete()
}

fn kill_names(lab: &Lab) -> Result<()> {
    for (name, number) in [("SIGUSR2", 12), ("HUP", 1), ("15", 15)] {
        let (container, _) = lab.hold(&lab.spec().without_namespace("pid"), json!([]))?;
        container.kill(name)?;
        same!(container.wait()?, 128 + number, "exit code after {name}");
        container.delete()?;
    }
    Ok(())
}

fn kill_default(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec().without_namespace("pid"), json!([]))?;
    lab.call_ok(&["kill", &container.id])?;
    same!(container.wait()?, 128 + 15, "exit code");
    container.delete()
}

fn kill_bad_signal(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    for signal in ["NOSUCH", "SIG", "99999", "-5"] {
        let output = lab.call(&["kill", &container.id, signal])?;
        ensure!(output.code != 0, "the signal {signal:?} was accepted");
    }
    ensure!(container.alive(), "a refused signal ended the container");
    container.finish()
}

fn kill_created(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    container.kill("KILL")?;
    same!(container.wait()?, 128 + 9, "exit code");
    same!(container.status()?, "stopped", "status");
    container.delete()
}

fn kill_stopped(lab: &Lab) -> Result<()> {
    let container = lab.start(&lab.spec(), json!([]))?;
    container.wait()?;
    lab.call_refused(&["kill", &container.id, "KILL"])?;
    same!(container.status()?, "stopped", "status");
    container.delete()
}

fn kill_unknown(lab: &Lab) -> Result<()> {
    lab.call_refused(&["kill", "no-such-container", "KILL"]).map(drop)
}

fn delete_running(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    lab.call_refused(&["delete", &container.id])?;
    same!(container.status()?, "running", "status after `delete` was refused");
    ensure!(container.alive(), "the refused `delete` ended the container");
    container.finish()
}

fn delete_created(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    lab.call_refused(&["delete", &container.id])?;
    same!(container.status()?, "created", "status after `delete` was refused");
    container.finish()
}

fn delete_stopped(lab: &Lab) -> Result<()> {
    let container = lab.start(&lab.spec(), json!([]))?;
    container.wait()?;
    container.delete()?;
    lab.call_refused(&["state", &container.id])?;
    lab.call_refused(&["delete", &container.id]).map(drop)
}

fn delete_unknown(lab: &Lab) -> Result<()> {
    lab.call_refused(&["delete", "no-such-container"]).map(drop)
}

fn delete_force_running(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    lab.call_ok(&["delete", "--force", &container.id])?;
    same!(container.wait()?, 128 + 9, "exit code");
    lab.call_refused(&["state", &container.id]).map(drop)
}

fn delete_force_created(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    lab.call_ok(&["delete", "--force", &container.id])?;
    same!(container.wait()?, 128 + 9, "exit code");
    lab.call_refused(&["state", &container.id]).map(drop)
}

fn delete_force_unknown(lab: &Lab) -> Result<()> {
    lab.call_ok(&["delete", "--force", "no-such-container"]).map(drop)
}

fn program_ends(lab: &Lab) -> Result<()> {
    let container = lab.start(&lab.spec(), json!([["spawn", 3]]))?;
    // With PID 1 of the namespace all others go.
    container.answers()?;
    Ok(())
}

fn without_process(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec().set("/process", json!(null)))?;
    let id = lab.new_id();
    if lab.call(&["create", "--bundle", &lab.bundle_path(), &id])?.code != 0 {
        // Refusing early is what "required when `start` is called" leaves room for.
        return Ok(());
    }
    if lab.call(&["start", &id])?.code == 0 {
        bail!("a container without `process` was started");
    }
    Ok(())
}
