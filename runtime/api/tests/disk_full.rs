//! The disk becomes full in the midst of a pull, an import, a build and a commit. Each says so and leaves nothing behind,
//! and what ran goes on.

mod common;

use std::io::Read as _;
use std::time::Duration;

use common::registry::{Registry, told};
use common::{Daemon, wait_until};

/// The disk, MiB.
const DISK_MIB: u32 = 64;
/// What half fills it, and what it can't hold.
const HALF_MIB: usize = 34;
const MORE_MIB: usize = 80;
/// Logs and tables that grow meanwhile, bytes.
const SLACK: u64 = 512 << 10;
/// Longest wait for what is removed after the answer.
const LIMIT: Duration = Duration::from_secs(20);

/// An archive of one file that can't be compressed.
fn archive(mib: usize) -> Vec<u8> {
    let mut content = Vec::new();
    std::fs::File::open("/dev/urandom").unwrap().take((mib as u64) << 20).read_to_end(&mut content).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    archive.append_data(&mut header, "noise", content.as_slice()).unwrap();
    archive.into_inner().unwrap()
}

fn is_disk_full(text: &str) -> bool {
    let text = text.to_lowercase();
    text.contains("no space left") || text.contains("disk is full")
}

/// Fails by the full disk; afterwards as much is free as before.
fn must_fail(
    daemon: &Daemon,
    words: &[&str],
    input: &[u8],
    client: impl FnOnce(&[&str], &[u8]) -> std::process::Output,
) {
    let before = daemon.free_bytes();
    let output = client(words, input);
    assert!(!output.status.success() && is_disk_full(&told(&output)), "{words:?}: {}", told(&output));
    wait_until("the space to come back", LIMIT, || daemon.free_bytes() + SLACK >= before);
}

#[test]
fn a_full_disk_costs_what_filled_it_and_nothing_else() {
    let registry = Registry::start();
    let source = registry.daemon("");
    let large = format!("{}/large:1", registry.address);
    let noise = archive(MORE_MIB);
    let imported = source.docker(&["import", "-", &large], &noise);
    assert!(imported.status.success(), "{}", told(&imported));
    assert!(registry.login(&source, "secret").status.success());
    registry.ok(&source, &["push", &large]);
    drop(source);

    let daemon = Daemon::start_on_disk(DISK_MIB, &registry.config(""));
    daemon.import_busybox();
    let script = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.1; done";
    daemon.ok(&["run", "-d", "--name", "keeper", "--network", "none", "box:1", "sh", "-c", script]);
    let images = daemon.ok(&["images", "-aq"]);
    let plain = |words: &[&str], input: &[u8]| daemon.docker(words, input);

    must_fail(&daemon, &["pull", &large], b"", |words, _| registry.docker(&daemon, words, ""));
    must_fail(&daemon, &["import", "-", "large:1"], &noise, plain);
    // What a step writes is there once in its container, and once more as a layer.
    let fill = format!("head -c {}m /dev/urandom >/noise", HALF_MIB);
    let dockerfile = format!("FROM box:1\nRUN {fill}\n");
    must_fail(&daemon, &["build", "--network", "none", "-t", "built", "-"], dockerfile.as_bytes(), plain);
    daemon.ok(&["run", "--name", "half", "--network", "none", "box:1", "sh", "-c", &fill]);
    must_fail(&daemon, &["commit", "half", "committed"], b"", plain);
    daemon.ok(&["rm", "half"]);

    assert_eq!(daemon.ok(&["images", "-aq"]), images, "no image was made");
    assert_eq!(daemon.ok(&["inspect", "--format", "{{.State.Running}} {{.RestartCount}}", "keeper"]), "true 0");
    let ticks = || daemon.ok(&["logs", "keeper"]).lines().count();
    let before = ticks();
    wait_until("the container to go on", LIMIT, || ticks() > before);
    let numbers: Vec<String> = daemon.ok(&["logs", "keeper"]).lines().map(str::to_owned).collect();
    assert!(numbers.iter().enumerate().all(|(at, line)| *line == format!("tick {}", at + 1)), "a line is missing");
    assert_eq!(daemon.run(&["box:1", "sh", "-c", "echo more"], b"").stdout, b"more\n");
}
