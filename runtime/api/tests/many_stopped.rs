//! Ten thousand stopped containers: what they cost is counted in reads of the daemon and in its memory, not in time.

mod common;

use std::path::Path;

use common::Daemon;
use common::http::Api;
use serde_json::Value;

/// Stopped containers.
const MANY: usize = 10_000;
/// Most system calls that read, for each record at the start: two files, each read until its end.
const READS_EACH: u64 = 5;
/// Most of them for a list, which is served from memory: sockets and wake-ups.
const READS_OF_A_LIST: u64 = 60;
/// Most memory of a stopped container, bytes.
const BYTES_EACH: u64 = 6 << 10;

/// A figure of `/proc/PID/FILE`.
fn figure(daemon: &Daemon, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/{file}", daemon.child.id())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn reads(daemon: &Daemon) -> u64 {
    figure(daemon, "io", "syscr:")
}

fn memory_bytes(daemon: &Daemon) -> u64 {
    figure(daemon, "smaps_rollup", "Pss_Anon:") << 10
}

/// Writes records like that of `template`, as the engine writes them.
fn multiply(folder: &Path, template: &str) {
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(folder.join(template).join(name)).unwrap()).unwrap()
    };
    let (mut config, state) = (read("config.json"), read("state.json").to_string());
    let created = config["created_unix_ns"].as_u64().unwrap();
    for number in 0..MANY {
        let id = format!("{number:064x}");
        config["id"] = id.clone().into();
        config["name"] = format!("old{number}").into();
        config["created_unix_ns"] = (created - 1 - number as u64).into();
        std::fs::create_dir(folder.join(&id)).unwrap();
        std::fs::write(folder.join(&id).join("config.json"), config.to_string()).unwrap();
        std::fs::write(folder.join(&id).join("state.json"), &state).unwrap();
    }
}

#[test]
fn ten_thousand_stopped_containers_cost_a_list_nothing_and_little_memory() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let options = ["--label", "a=b", "-v", "data:/data", "-e", "WORD=one", "--memory", "64m"];
    daemon.ok(&[&["run", "--name", "first", "--network", "none"], &options[..], &["box:1", "id"]].concat());
    let id = daemon.ok(&["inspect", "--format", "{{.Id}}", "first"]);
    let daemon = daemon.restart("");
    let (reads_before, bytes_before) = (reads(&daemon), memory_bytes(&daemon));
    multiply(&daemon.folder.path().join("state/containers"), &id);
    let daemon = daemon.restart("");
    let (reads_each, bytes_each) = (
        (reads(&daemon) - reads_before) / MANY as u64,
        memory_bytes(&daemon).saturating_sub(bytes_before) / MANY as u64,
    );
    println!("at the start {reads_each} reads and {bytes_each} bytes each");
    assert!(reads_each <= READS_EACH, "{reads_each} reads of each record");
    let api = Api::new(&daemon.socket());
    for (path, expected) in [
        ("/containers/json", 0),
        ("/containers/json?limit=10", 10),
        ("/containers/json?all=1&filters=%7B%22name%22%3A%5B%22%5Eold77%24%22%5D%7D", 1),
        ("/containers/json?all=1", MANY + 1),
    ] {
        let (before, begun) = (reads(&daemon), std::time::Instant::now());
        let list = api.call("GET", path, "").json();
        println!("{path}: {} reads, {:?}", reads(&daemon) - before, begun.elapsed());
        assert_eq!(list.as_array().unwrap().len(), expected);
        assert!(reads(&daemon) - before <= READS_OF_A_LIST, "{path} reads from disk");
    }
    assert!(bytes_each <= BYTES_EACH, "{bytes_each} bytes each");
    assert_eq!(api.call("GET", "/containers/old9999/json", "").json()["Name"], "/old9999");
}
