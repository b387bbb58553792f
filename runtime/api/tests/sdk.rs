//! Other people's clients: Docker's Python SDK, and `docker-compose` on top of it (Debian's `docker-compose` brings both;
//! see `make deps`).

mod common;

use std::path::Path;
use std::process::{Command, Output};

use anyhow::ensure;
use common::machine::Machine;
use keel_other_clients::{compose, sdk};

fn run(machine: &Machine, folder: &Path, words: &[&str]) -> Output {
    Command::new("timeout")
        .args(["--signal=KILL", "240"])
        .args(words)
        .current_dir(folder)
        .env(compose::API_VERSION.0, compose::API_VERSION.1)
        .env("DOCKER_HOST", format!("unix://{}", machine.folder.path().join("api.sock").display()))
        .output()
        .expect("run timeout")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn the_python_sdk_drives_the_main_verbs() {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    let script = sdk::script().display().to_string();
    let output = run(&machine, machine.folder.path(), &[&sdk::python(), &script]);
    assert!(output.status.success(), "python3-docker is among the packages of `make deps`: {}", text(&output));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn compose_brings_a_project_up_and_down() {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    let folder = machine.folder.path().join("shop");
    compose::write(&folder).unwrap();
    let program = compose::program();
    let led = compose::lead(|words| {
        let output = run(&machine, &folder, &[&[program.as_str()], words].concat());
        ensure!(output.status.success(), "docker-compose {words:?}: {}", text(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    });
    led.unwrap();
    let left = api.call("GET", "/containers/json?all=1", "").json();
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left}");
    assert_eq!(api.call("GET", "/volumes", "").json()["Volumes"].as_array().map(Vec::len), Some(0));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
