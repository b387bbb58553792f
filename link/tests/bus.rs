//! A real server and real clients on a unix socket: calls, failures, signals, limits, and `busctl`.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use keel_link::bus::{self, Failure, MAX_CLIENTS};
use keel_spec::api::ErrorCode;
use keel_spec::bus::{InstallProgress, UpdaterProxy};

#[derive(Clone)]
struct Updater;

#[zbus::interface(name = "org.keel.Updater1")]
impl Updater {
    async fn status(&self) -> Result<String, Failure> {
        Ok("fine".into())
    }

    async fn install(&self, version: &str) -> Result<String, Failure> {
        Err(bus::error(ErrorCode::KnownBad, format!("{version} failed here before")))
    }

    async fn install_bundle(&self, file: zbus::OwnedFd) -> Result<String, Failure> {
        let mut text = String::new();
        std::fs::File::from(std::os::fd::OwnedFd::from(file)).read_to_string(&mut text).unwrap();
        Ok(text)
    }
}

fn socket(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("updater")
}

async fn proxy(path: &PathBuf) -> UpdaterProxy<'static> {
    UpdaterProxy::builder(&bus::connect(path).await.unwrap()).destination("org.keel.Updater").build().await.unwrap()
}

/// Waits for a condition; panics when it doesn't come about.
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "never came about: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn calls_and_failures_go_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(&folder);
    let _server = bus::block_on(bus::serve(&path, "/org/keel/Updater", Updater)).unwrap();
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    bus::block_on(async {
        let proxy = proxy(&path).await;
        assert_eq!(proxy.status().await.unwrap(), "fine");
        let failure = bus::to_api_error(&proxy.install("1.2.3").await.unwrap_err());
        assert_eq!((failure.code, failure.message.as_str()), (ErrorCode::KnownBad, "1.2.3 failed here before"));
    });
}

#[test]
fn open_files_travel() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(&folder);
    let _server = bus::block_on(bus::serve(&path, "/org/keel/Updater", Updater)).unwrap();
    let (read, mut write) = std::io::pipe().unwrap();
    write.write_all(b"a bundle").unwrap();
    drop(write);
    bus::block_on(async {
        let told = proxy(&path).await.install_bundle(read.as_fd().into()).await.unwrap();
        assert_eq!(told, "a bundle");
    });
}

#[test]
fn signals_reach_every_client() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(&folder);
    let server = bus::block_on(bus::serve(&path, "/org/keel/Updater", Updater)).unwrap();
    bus::block_on(async {
        let (first, second) = (proxy(&path).await, proxy(&path).await);
        let mut streams = [first.receive_progress().await.unwrap(), second.receive_progress().await.unwrap()];
        // A call that is answered: both clients are known to the server.
        first.status().await.unwrap();
        second.status().await.unwrap();
        let progress = InstallProgress { stage: "root".into(), done_bytes: 1, total_bytes: 2 };
        server.emitter().emit("org.keel.Updater1", "Progress", &progress).await;
        for stream in &mut streams {
            let signal = stream.next().await.unwrap();
            assert_eq!(signal.args().unwrap().progress, progress);
        }
    });
}

#[test]
fn more_clients_than_the_limit_are_hung_up_on_and_places_come_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(&folder);
    let server = bus::block_on(bus::serve(&path, "/org/keel/Updater", Updater)).unwrap();
    let emitter = server.emitter();
    let mut idle: Vec<_> =
        (0..MAX_CLIENTS + 5).map(|_| std::os::unix::net::UnixStream::connect(&path).unwrap()).collect();
    until("all places taken", || emitter.clients() == MAX_CLIENTS);
    idle.clear();
    until("all places free", || emitter.clients() == 0);
    bus::block_on(async { assert_eq!(proxy(&path).await.status().await.unwrap(), "fine") });
}

#[test]
fn a_client_waits_for_a_server_that_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(&folder);
    let client = {
        let path = path.clone();
        std::thread::spawn(move || bus::block_on(async { proxy(&path).await.status().await.unwrap() }))
    };
    std::thread::sleep(Duration::from_millis(60));
    let _server = bus::block_on(bus::serve(&path, "/org/keel/Updater", Updater)).unwrap();
    assert_eq!(client.join().unwrap(), "fine");
}

#[test]
fn busctl_can_look_around_and_call() {
    let folder = tempfile::tempdir().unwrap();
    let path = socket(&folder);
    let _server = bus::block_on(bus::serve(&path, "/org/keel/Updater", Updater)).unwrap();
    let busctl = |arguments: &[&str]| {
        let output = Command::new("busctl")
            .arg(format!("--address=unix:path={}", path.display()))
            .args(arguments)
            .output()
            .expect("busctl (Debian package systemd) is needed for this test");
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let listing = busctl(&["introspect", "org.keel.Updater", "/org/keel/Updater"]);
    assert!(listing.contains("org.keel.Updater1") && listing.contains(".Install"), "{listing}");
    let answer = busctl(&["call", "org.keel.Updater", "/org/keel/Updater", "org.keel.Updater1", "Status"]);
    assert_eq!(answer.trim(), "s \"fine\"");
}
