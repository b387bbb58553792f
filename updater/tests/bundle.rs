//! Bundles made by the publisher, read by the same client as repositories; and installs from one.

mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use keel_image::publish::bundle::{BundleArguments, bundle};
use keel_image::publish::{KeysArguments, PublishArguments, publish, tuf_keys};
use keel_spec::api::ErrorCode;
use keel_spec::bundle::{BLOCK_BYTES, INFO_NAME, header, padding};
use keel_spec::disk::Slot;
use keel_spec::tuf::Time;
use keel_updater::bundle::{Bundle, LocalFile};
use keel_updater::disk::{self, Fenced};
use keel_updater::host::now_unix_s;
use keel_updater::install::Installer;
use keel_updater::mirrors::Mirrors;
use keel_updater::pace::Pace;
use keel_updater::source::{Http, Source};
use keel_updater::tuf::client::PATIENCE;
use keel_updater::tuf::{Client, TrustedSet, store::Store};
use support::checker::Disk;
use support::{Memory, Recorder, image, make, open_esp, plan};

/// A repository with releases, and a folder for what is made of it.
fn published(name: &str, versions: &[&str]) -> PathBuf {
    let base = std::env::temp_dir().join(format!("keel-updater-bundles-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&base);
    std::fs::create_dir_all(&base).unwrap();
    tuf_keys(&KeysArguments { keys: base.join("keys"), ..KeysArguments::default() }).unwrap();
    versions.iter().for_each(|version| add(&base, version));
    base
}

fn add(base: &Path, version: &str) {
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
    let arguments = PublishArguments {
        release: Some(release),
        repository: base.join("repository"),
        keys: base.join("keys"),
        timestamp_only: false,
        expires_days: 365,
        timestamp_expires_days: 30,
        rollout: Default::default(),
    };
    publish(&arguments).unwrap();
}

fn make_bundle(base: &Path, version: Option<&str>) -> PathBuf {
    let out = base.join(format!("{}.bundle", version.unwrap_or("newest")));
    let version = version.map(|version| version.parse().unwrap());
    let arguments =
        BundleArguments { repository: base.join("repository"), out: out.clone(), version, profile: "cloud".into() };
    bundle(&arguments).unwrap();
    out
}

fn refresh(base: &Path, source: &dyn Source, now: Time) -> Result<TrustedSet, keel_updater::tuf::Error> {
    let root = std::fs::read(base.join("keys/root.json")).unwrap();
    let store = Store::open(&base.join("trusted")).unwrap();
    Client { source, store: &store, trusted_root: &root, patience: PATIENCE }.refresh(now)
}

fn refresh_file(base: &Path, path: &Path, now: Time) -> Result<TrustedSet, keel_updater::tuf::Error> {
    let file = LocalFile::new(File::open(path).unwrap()).unwrap();
    let bundle = Bundle::open(&file, "bundle", Some(file.size())).unwrap();
    refresh(base, &bundle, now)
}

fn now() -> Time {
    Time(now_unix_s())
}

#[test]
fn a_bundle_is_trusted_as_its_repository_is_and_no_longer() {
    let base = published("trust", &["0.1.0"]);
    let old = make_bundle(&base, None);
    let old_bytes = std::fs::read(&old).unwrap();
    assert!(refresh_file(&base, &old, now()).unwrap().targets().unwrap().contains_key("keel-cloud-0.1.0.root"));
    let late = Time(now().0 + 31 * 86_400);
    assert_eq!(refresh_file(&base, &old, late).unwrap_err().code(), ErrorCode::Expired);
    add(&base, "0.2.0");
    let new = make_bundle(&base, Some("0.2.0"));
    assert!(refresh_file(&base, &new, now()).is_ok());
    // Whoever has an old bundle can't take the host back with it.
    std::fs::write(&old, old_bytes).unwrap();
    assert_eq!(refresh_file(&base, &old, now()).unwrap_err().code(), ErrorCode::Rollback);
    std::fs::remove_dir_all(base).unwrap();
}

#[test]
fn a_byte_changed_anywhere_in_the_metadata_is_refused() {
    let base = published("changed", &["0.1.0"]);
    let bytes = std::fs::read(make_bundle(&base, None)).unwrap();
    let changed = base.join("changed.bundle");
    for needle in ["\"_type\":\"timestamp\"", "\"_type\":\"snapshot\"", "\"length\":4096"] {
        let at = bytes.windows(needle.len()).position(|window| window == needle.as_bytes()).expect(needle);
        let mut bytes = bytes.clone();
        bytes[at + needle.len() - 2] ^= 1;
        std::fs::write(&changed, bytes).unwrap();
        let _ = std::fs::remove_dir_all(base.join("trusted"));
        assert!(refresh_file(&base, &changed, now()).is_err(), "{needle}");
    }
    std::fs::remove_dir_all(base).unwrap();
}

#[test]
fn a_file_that_was_changed_in_the_repository_is_not_bundled() {
    let base = published("rotten", &["0.1.0"]);
    let targets = std::fs::read_dir(base.join("repository/targets")).unwrap().map(|entry| entry.unwrap().path());
    let root = targets.into_iter().find(|path| path.to_str().unwrap().ends_with(".root")).unwrap();
    std::fs::write(root, [8; 4096]).unwrap();
    let out = base.join("x.bundle");
    let arguments =
        BundleArguments { repository: base.join("repository"), out, version: None, profile: "cloud".into() };
    let error = format!("{:#}", bundle(&arguments).unwrap_err());
    assert!(error.contains("not what was signed") && !arguments.out.exists(), "{error}");
    let other = BundleArguments { profile: "metal".into(), ..arguments.clone() };
    assert!(format!("{:#}", bundle(&other).unwrap_err()).contains("no such release of profile metal"));
    std::fs::remove_dir_all(base).unwrap();
}

/// Serves one file with one range in a request, or without ranges. Ends with the test's process.
fn serve(path: PathBuf, ranges: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let bytes = std::fs::read(path).unwrap();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines: Vec<String> =
                BufReader::new(&stream).lines().map_while(Result::ok).take_while(|line| !line.is_empty()).collect();
            let range = lines.iter().find_map(|line| {
                let (from, to) = line
                    .to_lowercase()
                    .strip_prefix("range: bytes=")?
                    .split_once('-')
                    .map(|(a, b)| (a.parse::<usize>().ok(), b.parse::<usize>().ok()))?;
                Some((from?, to?))
            });
            let (head, body) = match range.filter(|_| ranges) {
                Some((from, to)) => {
                    let to = to.min(bytes.len() - 1);
                    let head = format!("206 Partial Content\r\nContent-Range: bytes {from}-{to}/{}", bytes.len());
                    (head, &bytes[from..=to])
                }
                None => ("200 OK".to_owned(), &bytes[..]),
            };
            let head = format!("HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            // A client that hangs up in the middle is none of this thread's business.
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address
}

#[test]
fn a_bundle_on_a_web_server_is_read_in_ranges() {
    let base = published("http", &["0.1.0"]);
    let path = make_bundle(&base, None);
    let http = Http::new(&serve(path.clone(), true), None).unwrap();
    let bundle = Bundle::open(&http, "x.bundle", None).unwrap();
    assert!(refresh(&base, &bundle, now()).unwrap().targets().unwrap().contains_key("keel-cloud-0.1.0.efi"));
    let plain = Http::new(&serve(path, false), None).unwrap();
    let failure = Bundle::open(&plain, "x.bundle", None).map(|_| ()).unwrap_err();
    assert!(failure.message.contains("serves no ranges"), "{failure}");
    std::fs::remove_dir_all(base).unwrap();
}

/// A bundle of a release's files; its metadata are none.
fn bundle_of(memory: &Memory) -> LocalFile {
    let info = br#"{"version":"1.1.0","profile":"cloud"}"#.to_vec();
    let mut files: Vec<(String, Vec<u8>)> = memory
        .files
        .iter()
        .map(|(path, bytes)| (format!("targets/{}", path.split_once('.').unwrap().1), bytes.clone()))
        .collect();
    files.sort();
    let mut bytes = Vec::new();
    for (name, content) in [(INFO_NAME.to_owned(), info)].into_iter().chain(files) {
        bytes.extend(header(&name, content.len() as u64).unwrap());
        let end = bytes.len() + content.len() + padding(content.len() as u64) as usize;
        bytes.extend(content);
        bytes.resize(end, 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    let path = std::env::temp_dir().join(format!("keel-updater-bundle-of-{}-{:p}", std::process::id(), &bytes));
    std::fs::write(&path, bytes).unwrap();
    let file = File::open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    LocalFile::new(file).unwrap()
}

#[test]
fn an_install_from_a_bundle_takes_only_what_is_not_on_the_disk() {
    let running = make("1.0.0", 300, 2, |block| block);
    let new = make("1.1.0", 300, 2, |block| if block < 100 { block + 50 } else { block + 9000 });
    let (memory, recorder) = (Memory::of(&new), Recorder::new(image(&running, None)));
    let file = bundle_of(&memory);
    let bundle = Bundle::open(&file, "bundle", Some(file.size())).unwrap();
    let plan = plan(&recorder, &running, &memory, &new.release, false).unwrap();
    let mirrors = Mirrors::new([&bundle as &dyn Source], Pace::default());
    let table = disk::read_table(&recorder).unwrap().0;
    let fenced = Fenced::new(&recorder, &table, Slot::holding(&table, &running.release.root_hash).unwrap());
    let mut esp = open_esp(&recorder);
    Installer { mirrors: &mirrors, disk: &fenced, esp: &mut esp }.run(&plan, &mut |_, _, _| ()).unwrap();
    let wanted = 201 * 4096 + (new.tree.len() + new.list.len()) as u64;
    assert_eq!(mirrors.fetched_bytes(), wanted);
    let mut disk = Disk::new(recorder.image.lock().unwrap().clone(), &[&running, &new]);
    assert_eq!(disk.boots().unwrap().to_string(), "1.1.0");
}
