//! The metadata client against repositories made by the publisher, over HTTP on loopback.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use keel_image::publish::{KeysArguments, PublishArguments, RootArguments, publish, tuf_keys, tuf_root};
use keel_spec::api::ErrorCode;
use keel_spec::tuf::{Role, Time};
use keel_updater::source::Http;
use keel_updater::tuf::client::PATIENCE;
use keel_updater::tuf::{self, Client, TrustedSet, store::Store};

/// Serves a folder; `timestamp.json` never ends if `endless`. Ends with the test's process.
fn serve(folder: PathBuf, endless: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                request.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&request);
            let path = text.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
            // A client that hangs up in the middle is none of this thread's business.
            let _ = if endless && path == "timestamp.json" {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
                while stream.write_all(&[b' '; 4096]).is_ok() {}
                Ok(())
            } else if let Ok(body) = std::fs::read(folder.join(&path)) {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body))
            } else {
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            };
        }
    });
    address
}

fn arguments(base: &Path, version: &str) -> PublishArguments {
    let release = base.join(format!("release-{version}"));
    std::fs::create_dir_all(&release).unwrap();
    let description = serde_json::json!({
        "version": version, "profile": "cloud", "built_unix_s": 1, "root_hash": "0".repeat(64),
        "root_blocks": 1, "tree_bytes": 3, "uki_bytes": 2,
    });
    let write = |suffix: &str, bytes: &[u8]| {
        std::fs::write(release.join(format!("keel-cloud-{version}.{suffix}")), bytes).unwrap();
    };
    write("json", &serde_json::to_vec(&description).unwrap());
    write("root", &[7; 4096]);
    write("verity", b"abc");
    write("efi", b"MZ");
    PublishArguments {
        release: Some(release),
        repository: base.join("repository"),
        keys: base.join("keys"),
        timestamp_only: false,
        expires_days: 365,
        timestamp_expires_days: 30,
        rollout: Default::default(),
    }
}

fn base(name: &str) -> PathBuf {
    let base = std::env::temp_dir().join(format!("keel-updater-repository-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&base);
    std::fs::create_dir_all(&base).unwrap();
    tuf_keys(&KeysArguments { keys: base.join("keys"), ..KeysArguments::default() }).unwrap();
    base
}

fn refresh(base: &Path, address: &str, now: Time) -> Result<TrustedSet, keel_updater::tuf::Error> {
    let root = std::fs::read(base.join("keys/root.json")).unwrap();
    let store = Store::open(&base.join("trusted")).unwrap();
    let source = Http::new(address, None).unwrap();
    Client { source: &source, store: &store, trusted_root: &root, patience: PATIENCE }.refresh(now)
}

fn now() -> Time {
    Time(keel_updater::host::now_unix_s())
}

#[test]
fn what_the_publisher_publishes_is_trusted_until_it_expires_and_never_goes_back() {
    let base = base("good");
    let address = serve(base.join("repository"), false);
    publish(&arguments(&base, "0.1.0")).unwrap();
    let old = std::fs::read(base.join("repository/timestamp.json")).unwrap();
    assert!(refresh(&base, &address, now()).unwrap().targets().unwrap().contains_key("keel-cloud-0.1.0.root"));
    publish(&arguments(&base, "0.2.0")).unwrap();
    let trusted = refresh(&base, &address, now()).unwrap();
    assert!(trusted.targets().unwrap().contains_key("keel-cloud-0.2.0.efi"));

    let late = Time(now().0 + 31 * 86_400);
    assert_eq!(refresh(&base, &address, late).unwrap_err().code(), ErrorCode::Expired);
    let newest = std::fs::read(base.join("repository/timestamp.json")).unwrap();
    std::fs::write(base.join("repository/timestamp.json"), old).unwrap();
    assert_eq!(refresh(&base, &address, now()).unwrap_err().code(), ErrorCode::Rollback);
    std::fs::write(base.join("repository/timestamp.json"), newest).unwrap();

    // Torn files in the store are no reason to refuse, or to trust.
    for folder in ["trusted", "trusted/roots"] {
        let files = std::fs::read_dir(base.join(folder)).unwrap().map(|entry| entry.unwrap().path());
        for file in files.filter(|path| path.is_file()) {
            std::fs::write(file, "{\"signa").unwrap();
        }
    }
    refresh(&base, &address, now()).unwrap();
    std::fs::remove_dir_all(base).unwrap();
}

#[test]
fn a_host_with_an_old_root_follows_the_publisher_over_replaced_keys_and_thresholds() {
    let base = base("roots");
    let first_root = std::fs::read(base.join("keys/root.json")).unwrap();
    let address = serve(base.join("repository"), false);
    publish(&arguments(&base, "0.1.0")).unwrap();
    refresh(&base, &address, now()).unwrap();
    for (replace, threshold) in [(Role::ALL.to_vec(), 1), (vec![Role::Root], 1), (vec![Role::Timestamp], 1)] {
        let arguments = RootArguments {
            keys: base.join("keys"),
            repository: Some(base.join("repository")),
            replace,
            threshold: vec![(Role::Root, threshold)],
            root_expires_days: 10,
            expires_days: 10,
            timestamp_expires_days: 10,
        };
        tuf_root(&arguments).unwrap();
    }
    publish(&arguments(&base, "0.2.0")).unwrap();
    // The host's release still carries the first root.
    std::fs::write(base.join("keys/root.json"), first_root).unwrap();
    let trusted = refresh(&base, &address, now()).unwrap();
    assert_eq!(trusted.root().version, 4);
    assert!(trusted.targets().unwrap().contains_key("keel-cloud-0.2.0.efi"));
    std::fs::remove_dir_all(base).unwrap();
}

#[test]
fn what_was_accepted_tells_without_the_repository_what_was_published() {
    let base = base("kept");
    publish(&arguments(&base, "0.1.0")).unwrap();
    let address = serve(base.join("repository"), false);
    let kept = || {
        let root = std::fs::read(base.join("keys/root.json")).unwrap();
        tuf::Client::kept(&Store::open(&base.join("trusted")).unwrap(), &root)
    };
    assert!(kept().is_err(), "nothing was accepted yet");
    refresh(&base, &address, now()).unwrap();
    let trusted = kept().unwrap();
    let uki = trusted.targets().unwrap()["keel-cloud-0.1.0.efi"].clone();
    assert_eq!((uki.length, uki.sha256()), (2, Some(&*tuf::keys::sha256_hex(b"MZ"))));
    // Whoever changes the files on the disk changes nothing that is believed.
    for role in ["timestamp", "snapshot", "targets"] {
        let path = base.join(format!("trusted/{role}.json"));
        let good = std::fs::read(&path).unwrap();
        std::fs::write(&path, String::from_utf8(good.clone()).unwrap().replace("\"version\":1", "\"version\":2"))
            .unwrap();
        assert!(kept().is_err(), "{role}");
        std::fs::write(&path, good).unwrap();
    }
    kept().unwrap();
    std::fs::remove_dir_all(base).unwrap();
}

#[test]
fn endless_data_is_cut_off() {
    let base = base("endless");
    publish(&arguments(&base, "0.1.0")).unwrap();
    let address = serve(base.join("repository"), true);
    let error = refresh(&base, &address, now()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::Network);
    assert!(error.to_string().contains("timestamp.json"), "{error}");
    std::fs::remove_dir_all(base).unwrap();
}
