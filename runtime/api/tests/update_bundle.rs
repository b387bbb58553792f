//! A bundle on its way through the API into the updater's hands. The updater is one of this test's; its
//! socket is below a `/run` of its own, in a mount namespace of its own.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::Daemon;
use keel_link::bus::{self, Failure};
use keel_spec::api::{ApiError, ErrorCode, InstallEvent};
use keel_spec::bundle::{BLOCK_BYTES, INFO_NAME, header, padding};
use keel_spec::paths;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

#[derive(Clone, Default)]
struct Updater(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    activity: String,
    bytes: Vec<u8>,
}

#[zbus::interface(name = "org.keel.Updater1")]
impl Updater {
    async fn status(&self) -> Result<String, Failure> {
        let activity = self.0.lock().unwrap().activity.clone();
        Ok(serde_json::json!({
            "running": "1.0.0", "slot": "a", "on_trial": false, "other": null, "next_boot": "1.0.0", "repository": null,
            "bad": [], "activity": activity,
        })
        .to_string())
    }

    async fn install_bundle(&self, file: zbus::OwnedFd) -> Result<String, Failure> {
        let mut bytes = Vec::new();
        std::fs::File::from(std::os::fd::OwnedFd::from(file)).read_to_end(&mut bytes).unwrap();
        self.0.lock().unwrap().bytes = bytes;
        Ok("1.2.3".into())
    }

    async fn install_from(&self, url: &str) -> Result<String, Failure> {
        Err(bus::error(ErrorCode::Network, format!("{url} is far away")))
    }

    async fn install_disk(&self, name: &str) -> Result<String, Failure> {
        Err(bus::error(ErrorCode::NotFound, format!("nothing on {name:?}")))
    }
}

/// A `/run` that nobody else sees, for this thread and what it starts.
fn own_run() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("run"), "/run", Some("tmpfs"), MsFlags::empty(), none).unwrap();
}

fn bundle(root_bytes: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, length) in [(INFO_NAME, 40), ("1.root.json", 700), ("targets/keel-cloud-1.2.3.root", root_bytes)] {
        bytes.extend(header(name, length).unwrap());
        bytes.resize(bytes.len() + (length + padding(length)) as usize, b'x');
    }
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    bytes
}

/// Sends a body, if the server wants it; says how much was sent, and the answer's last line.
fn send(socket: &Path, path: &str, body: &[u8]) -> (usize, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    let wanted = &first == b"HTTP/1.1 100";
    let mut sent = 0;
    for piece in body.chunks(64 << 10).take_while(|_| wanted) {
        if stream.write_all(piece).is_err() {
            break;
        }
        sent += piece.len();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let json = answer.lines().rfind(|line| line.starts_with('{'));
    (sent, json.unwrap_or_else(|| panic!("no answer: {answer}")).to_owned())
}

fn refusal(json: &str) -> ApiError {
    serde_json::from_str(json).unwrap_or_else(|_| panic!("{json}"))
}

#[test]
fn a_bundle_goes_through_the_api_into_the_updaters_hands() {
    own_run();
    let updater = Updater::default();
    updater.0.lock().unwrap().activity = "idle".into();
    let _server = bus::block_on(bus::serve(paths::UPDATER_BUS, "/org/keel/Updater", updater.clone())).unwrap();
    let daemon = Daemon::start();
    let socket = daemon.folder.path().join("api.sock");
    const PATH: &str = "/keel/v1/update/bundle";

    let bytes = bundle(3 << 20);
    let (sent, last) = send(&socket, PATH, &bytes);
    assert_eq!(sent, bytes.len());
    let last: InstallEvent = serde_json::from_str(&last).unwrap_or_else(|_| panic!("{last}"));
    assert_eq!(last, InstallEvent::Installed { version: "1.2.3".parse().unwrap() });
    assert!(updater.0.lock().unwrap().bytes == bytes, "the updater has other bytes");

    let refused = refusal(&send(&socket, PATH, &b"<html>".repeat(1 << 20)).1);
    assert!(refused.code == ErrorCode::BadRequest && refused.message.contains("not a bundle"), "{refused:?}");

    updater.0.lock().unwrap().activity = "root".into();
    let (sent, busy) = send(&socket, PATH, &bytes);
    assert_eq!((sent, refusal(&busy).code), (0, ErrorCode::Conflict), "{busy}");

    let from = br#"{"from":"http://files.example/x.bundle"}"#;
    let far = refusal(&send(&socket, "/keel/v1/update/install", from).1);
    assert_eq!((far.code, far.message.as_str()), (ErrorCode::Network, "http://files.example/x.bundle is far away"));
    for (body, word) in [(r#"{"disk":""}"#, r#"on """#), (r#"{"disk":"sdb1"}"#, r#"on "sdb1""#)] {
        let none = refusal(&send(&socket, "/keel/v1/update/install", body.as_bytes()).1);
        assert!(none.code == ErrorCode::NotFound && none.message.contains(word), "{none:?}");
    }
    let both = br#"{"disk":"","from":"http://files.example/x.bundle"}"#;
    assert_eq!(refusal(&send(&socket, "/keel/v1/update/install", both).1).code, ErrorCode::BadRequest);
}
