//! A repository, or somebody between it and the host, that is hostile.
//!
//! The attacks that the specification lists (section 1.5.2): arbitrary software, wrong software and mix-and-match are
//! tampering here; endless data and slow retrieval are misbehaviours here; rollback, fast-forward, freeze and key
//! compromise are in `conformance.rs` and `delegations.rs`. Whatever happens: nothing is accepted, nothing hangs, memory
//! is bounded, and once the repository behaves again the host goes on.

mod simulator;

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keel_fetch::{LeastRate, Options};
use keel_spec::api::ErrorCode;
use keel_spec::tuf::Time;
use keel_updater::bundle::Bundle;
use keel_updater::mirrors::Mirrors;
use keel_updater::pace::Pace;
use keel_updater::plan::Target;
use keel_updater::source::{Http, Source};
use keel_updater::transfer;
use keel_updater::tuf::keys::sha256_hex;
use keel_updater::tuf::{Client, TrustedSet};
use serde_json::{Value, json};
use simulator::{Host, LATER, Misbehaviour, Repository, Server, Signer, TOP, sign};

/// A second publication, with a new root and a delegated role, that hosts don't have yet.
fn repository(hashes: bool) -> (Repository, Host) {
    let mut repository = Repository::new();
    repository.hashes = hashes;
    repository.delegate("targets", "D", json!({"paths": ["d/*"]}));
    repository.add("D", "d/file", b"content");
    repository.publish_all();
    let host = repository.host(&format!("hostile-{hashes}-{:?}", std::thread::current().id()));
    repository.publish(&["root"]);
    repository.publish_all();
    (repository, host)
}

fn now() -> Time {
    Time(keel_updater::host::now_unix_s())
}

/// All files of the second publication, with the roles that they are of.
const FILES: [(&str, &str); 5] = [
    ("root", "metadata/2.root.json"),
    ("timestamp", "metadata/timestamp.json"),
    ("snapshot", "metadata/3.snapshot.json"),
    ("targets", "metadata/3.targets.json"),
    ("D", "metadata/2.D.json"),
];

/// The workflow without a server, right before each of the files.
struct Workflow(Vec<TrustedSet>);

impl Workflow {
    fn new(repository: &Repository, host: &Host) -> Self {
        let mut sets = vec![TrustedSet::new(&host.root, now()).unwrap()];
        for (role, _) in FILES.into_iter().take(4) {
            let mut next = sets.last().unwrap().clone();
            Self::feed(&mut next, role, repository.published(role)).unwrap();
            sets.push(next);
        }
        Self(sets)
    }

    fn feed(set: &mut TrustedSet, role: &str, bytes: &[u8]) -> Result<(), keel_updater::tuf::Error> {
        match role {
            "root" => set.update_root(bytes).map(drop),
            "timestamp" => set.update_timestamp(bytes).map(drop),
            "snapshot" => set.update_snapshot(bytes),
            "targets" => set.update_targets(bytes),
            _ => {
                let delegations = set.top_level().and_then(|top| top.delegations.clone()).unwrap_or_default();
                set.read_delegated(&delegations, role, bytes).map(drop)
            }
        }
    }

    /// Whether a file is accepted in the place of a role's own.
    fn accepts(&self, role: &str, bytes: &[u8]) -> bool {
        let before = FILES.iter().position(|(each, _)| *each == role).unwrap();
        Self::feed(&mut self.0[before].clone(), role, bytes).is_ok()
    }
}

#[test]
fn no_byte_of_any_file_can_be_changed() {
    for hashes in [false, true] {
        let (repository, host) = repository(hashes);
        let workflow = Workflow::new(&repository, &host);
        for (role, path) in FILES {
            if hashes && matches!(role, "root" | "timestamp") {
                continue; // Nobody promises their digests.
            }
            let original = repository.server.get(path);
            assert!(workflow.accepts(role, &original));
            let meaning: Value = serde_json::from_slice(&original).unwrap();
            let mut changes = 0;
            for at in 0..original.len() {
                // Another bit, another case, an end of text, white space, no byte at all, twice the byte.
                let mut variants: Vec<Vec<u8>> = [1, 0x20, 0x80]
                    .map(|bit| original[at] ^ bit)
                    .into_iter()
                    .chain([b'"', b' ', 0])
                    .map(|byte| {
                        let mut changed = original.clone();
                        changed[at] = byte;
                        changed
                    })
                    .collect();
                variants.push([&original[..at], &original[at + 1..]].concat());
                variants.push([&original[..at], &original[at..=at], &original[at..]].concat());
                variants.push(original[..at].to_vec());
                for changed in variants.into_iter().filter(|changed| *changed != original) {
                    changes += 1;
                    if workflow.accepts(role, &changed) {
                        // What was accepted says the same: digits of signatures in another case, other white space.
                        let same =
                            serde_json::from_slice::<Value>(&changed).is_ok_and(|it| it["signed"] == meaning["signed"]);
                        let promised = hashes && matches!(role, "snapshot" | "targets" | "D");
                        assert!(same && !promised, "{role}, byte {at}: {}", String::from_utf8_lossy(&changed));
                    }
                }
            }
            assert!(changes > 3000, "{role}: {changes} changes");
        }
    }
}

#[test]
fn no_field_can_be_changed_added_or_taken_away_by_who_lacks_the_key() {
    let (repository, host) = repository(false);
    let workflow = Workflow::new(&repository, &host);
    for (role, path) in FILES {
        let original: Value = serde_json::from_slice(&repository.server.get(path)).unwrap();
        let fields: Vec<String> = original["signed"].as_object().unwrap().keys().cloned().collect();
        for field in fields {
            for value in
                [Value::Null, json!(0), json!(99), json!(-1), json!(1.5), json!(""), json!("a"), json!([]), json!({})]
            {
                let mut changed = original.clone();
                changed["signed"][&field] = value;
                if changed != original {
                    assert!(!workflow.accepts(role, &serde_json::to_vec(&changed).unwrap()), "{role} {field}");
                }
            }
            let mut changed = original.clone();
            changed["signed"].as_object_mut().unwrap().remove(&field);
            assert!(!workflow.accepts(role, &serde_json::to_vec(&changed).unwrap()), "{role} without {field}");
        }
        let mut changed = original.clone();
        changed["signed"]["further"] = 1.into();
        assert!(!workflow.accepts(role, &serde_json::to_vec(&changed).unwrap()), "{role} with more");
        // Signed whole by somebody else, and with the first's key ID on it.
        let mut forged: Value = serde_json::from_slice(&sign(&original["signed"], &[Signer::new()])).unwrap();
        assert!(!workflow.accepts(role, &serde_json::to_vec(&forged).unwrap()));
        forged["signatures"][0]["keyid"] = original["signatures"][0]["keyid"].clone();
        assert!(!workflow.accepts(role, &serde_json::to_vec(&forged).unwrap()));
        // The same name twice: one for the signature, one to be read.
        let text = serde_json::to_string(&original).unwrap();
        let twice = text.replacen("\"signed\":", "\"signed\":{},\"signed\":", 1);
        assert!(!workflow.accepts(role, twice.as_bytes()));
        let last = text.replacen(
            &format!("\"expires\":\"{LATER}\""),
            &format!("\"expires\":\"{LATER}\",\"expires\":\"2998-01-01T00:00:00Z\""),
            1,
        );
        assert!(!workflow.accepts(role, last.as_bytes()), "{role}: what is read is what is verified");
    }
}

fn head(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

/// What a server does instead of answering, by name.
fn misbehaviours() -> Vec<(&'static str, Misbehaviour)> {
    fn named(
        name: &'static str,
        how: impl Fn(&mut TcpStream, &str, Option<Vec<u8>>) + Send + Sync + 'static,
    ) -> (&'static str, Misbehaviour) {
        (name, Arc::new(how))
    }
    let raw = |name, text: &'static str| named(name, move |stream, _, _| head(stream, text));
    let forever = |name, start: &'static str, more: &'static [u8]| {
        named(name, move |stream: &mut TcpStream, _: &str, _: Option<Vec<u8>>| {
            head(stream, start);
            while stream.write_all(more).is_ok() {}
        })
    };
    vec![
        forever("endless data", "HTTP/1.1 200 OK\r\n\r\n", &[b' '; 4096]),
        forever("endless JSON", "HTTP/1.1 200 OK\r\n\r\n{\"signatures\":[", b"{\"keyid\":\"\",\"sig\":\"\"},"),
        forever("endless chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4\r\n    \r\n"),
        forever("an endless head", "HTTP/1.1 200 OK\r\n", b"X-More: 0123456789012345678901234567890123456789\r\n"),
        forever("more than was said", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", &[b'['; 4096]),
        raw("nothing", ""),
        raw("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n"),
        raw("an empty file", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        raw("less than was said", "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"signatures\":[]"),
        raw(
            "HTML",
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 32\r\n\r\n<html><body>Log in</body></html>",
        ),
        raw("a failure", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
        raw(
            "a part that nobody asked for",
            "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/2\r\nContent-Length: 2\r\n\r\n{}",
        ),
        raw("a redirect nowhere", "HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n"),
        raw("a redirect to a file", "HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
        named("redirects in a circle", |stream, request, _| {
            let path = request.split(' ').nth(1).unwrap_or("/");
            head(
                stream,
                &format!("HTTP/1.1 302 Found\r\nLocation: {path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"),
            );
        }),
        named("the file of another role", |stream, _, _| {
            let other =
                sign(&json!({"_type": "mirrors", "spec_version": "1.0.0", "version": 1, "expires": LATER}), &[]);
            head(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", other.len()));
            let _ = stream.write_all(&other);
        }),
        named("one more byte", |stream, _, content| {
            let content = [content.unwrap_or_default(), vec![b'x']].concat();
            head(stream, &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", content.len()));
            let _ = stream.write_all(&content);
        }),
    ]
}

#[test]
fn whatever_a_server_answers_nothing_is_accepted_and_nothing_hangs() {
    let (repository, host) = repository(true);
    assert_eq!(host.init(), 0);
    let (source, store) = (host.source(), host.store());
    let client = Client { patience: Duration::from_secs(5), ..host.client(&source, &store) };
    for (at, (role, path)) in FILES.into_iter().enumerate() {
        // Roles before it are accepted, it and those after it aren't.
        for (what, misbehaviour) in misbehaviours() {
            let before: Vec<_> = TOP.iter().chain(&["D"]).map(|role| host.trusted(role)).collect();
            repository.server.misbehave(path, misbehaviour);
            let began = Instant::now();
            let outcome = client.refresh(now()).and_then(|set| client.find(&set, "d/file"));
            assert!(outcome.is_err(), "{role}: {what}");
            assert!(began.elapsed() < Duration::from_secs(20), "{role}: {what} took {:?}", began.elapsed());
            repository.server.behave();
            let after: Vec<_> = TOP.iter().chain(&["D"]).map(|role| host.trusted(role)).collect();
            assert!(after[at] == before[at], "{role}: {what}");
        }
        if at + 1 < FILES.len() {
            // Up to this file the host goes on, so that the next one is asked for.
            repository.server.misbehave(FILES[at + 1].1, Arc::new(|stream, _, _| head(stream, "")));
            assert!(client.refresh(now()).and_then(|set| client.find(&set, "d/file")).is_err());
            assert_eq!(host.trusted(role).unwrap(), repository.published(role), "{role}");
        }
    }
    repository.server.behave();
    let found = client.refresh(now()).and_then(|set| client.find(&set, "d/file"));
    assert_eq!(found.unwrap().unwrap().length, 7, "the host goes on as soon as the repository behaves");
}

#[test]
fn bytes_that_trickle_in_are_waited_for_only_so_long() {
    let (repository, host) = repository(true);
    let (source, store) = (host.source(), host.store());
    let client = Client { patience: Duration::from_secs(1), ..host.client(&source, &store) };
    repository.server.misbehave("metadata/timestamp.json", dripping(WHOLE));
    let began = Instant::now();
    let error = client.refresh(now()).unwrap_err().to_string();
    assert!(error.contains("timestamp.json") && error.contains("too slow"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

/// A source that is given up soon when too little comes.
fn impatient(server: &Server) -> Http {
    let least_rate = Some(LeastRate { bytes: 1000, within: Duration::from_millis(200) });
    Http::with(Options { least_rate, ..Options::default() }, &server.address()).unwrap()
}

/// The head of a file.
const WHOLE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n";

/// Sends a head, and then a byte now and then.
fn dripping(how: &'static str) -> Misbehaviour {
    Arc::new(move |stream, _, _| {
        head(stream, how);
        while stream.write_all(b" ").and_then(|()| stream.flush()).is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn a_mirror_whose_files_trickle_in_is_left_for_the_next_one() {
    let (content, digest) = (vec![7; 10_000], sha256_hex(&[7; 10_000]));
    let target = Target { name: "file".into(), length: 10_000, sha256: digest };
    let (slow, good) = (Server::start(), Server::start());
    good.put(&target.path(), content.clone());
    slow.misbehave(&target.path(), dripping(WHOLE));
    let (slow, good) = (impatient(&slow), impatient(&good));
    let began = Instant::now();
    let sources: [&dyn Source; 2] = [&slow, &good];
    assert_eq!(transfer::small(&Mirrors::new(sources, Pace::default()), &target).unwrap(), content);
    let failure = transfer::small(&Mirrors::new([&slow as &dyn Source], Pace::default()), &target).unwrap_err();
    assert!(failure.code == ErrorCode::Network && failure.message.contains("too slow"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_bundle_that_trickles_in_is_given_up() {
    let server = Server::start();
    let part = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-511/10000\r\nContent-Length: 512\r\n\r\n";
    server.misbehave("x", dripping(part));
    let source = impatient(&server);
    let began = Instant::now();
    let failure = Bundle::open(&source, "x", None).map(drop).unwrap_err();
    assert!(failure.code == ErrorCode::Network && failure.message.contains("too slow"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn memory_stays_bounded_whatever_is_sent() {
    let (repository, host) = repository(false);
    assert_eq!(host.init(), 0);
    let refresh = || {
        let command = host.command(&["refresh"]);
        // Address space of the whole program, threads' stacks and libraries included.
        let mut limited = std::process::Command::new("sh");
        limited
            .args(["-c", "ulimit -v 131072; exec \"$0\" \"$@\""])
            .arg(command.get_program())
            .args(command.get_args());
        limited.stderr(std::process::Stdio::null()).status().unwrap().code()
    };
    let many = |value: &str, bytes: usize| {
        format!("{{\"signatures\":[],\"signed\":[{}0]}}", value.repeat(bytes / value.len()))
    };
    for (role, path) in FILES.into_iter().take(4) {
        for bomb in [
            "{\"\":0},",
            "0,",
            "[],",
            "\"\",",
            "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",",
            "[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]],",
        ] {
            let whole = repository.server.get(path);
            repository.server.put(path, many(bomb, 5 << 20).into_bytes());
            assert_eq!(refresh(), Some(1), "{role}: {bomb}");
            repository.server.put(path, many(bomb, 500 << 10).into_bytes());
            assert_eq!(refresh(), Some(1), "{role}: {bomb}");
            repository.server.put(path, whole);
        }
        let (_, endless) = misbehaviours().swap_remove(1);
        repository.server.misbehave(path, endless);
        assert_eq!(refresh(), Some(1), "{role}: endless");
        repository.server.behave();
    }
    assert_eq!(refresh(), Some(0), "the limit itself is no obstacle");
}

#[test]
fn a_part_of_a_file_is_the_part_that_was_asked_for_or_an_error() {
    let repository = Repository::new();
    let host = repository.host("ranges");
    let source = host.source();
    for (range, length) in [
        ("bytes 0-9/100", 10),
        ("bytes 10-18/100", 9),
        ("bytes 11-20/100", 10),
        ("bytes 10-19/5", 10),
        ("bytes */100", 10),
        ("octets 10-19/100", 10),
        ("", 10),
        ("bytes 10-18446744073709551615/*", 10),
        ("bytes 10-19/100", 11),
    ] {
        repository.server.misbehave(
            "metadata/part",
            Arc::new(move |stream, _, _| {
                let text = format!(
                    "HTTP/1.1 206 Partial Content\r\nContent-Range: {range}\r\nContent-Length: {length}\r\n\r\n"
                );
                head(stream, &text);
                let _ = stream.write_all(&vec![b'x'; length]);
            }),
        );
        assert!(source.open("part", std::slice::from_ref(&(10..20)), 10).is_err(), "{range} of {length} bytes");
    }
}

#[test]
fn a_refused_target_leaves_nothing_behind() {
    let (repository, host) = repository(true);
    assert_eq!(host.init(), 0);
    let path = format!("targets/d/{}.file", sha256_hex(b"content"));
    for (what, misbehaviour) in misbehaviours() {
        repository.server.misbehave(&path, misbehaviour);
        assert_eq!(host.download("d/file"), 1, "{what}");
        assert!(host.downloaded().is_empty(), "{what}");
        repository.server.behave();
    }
    assert_eq!((host.download("d/file"), host.downloaded()), (0, vec![b"content".to_vec()]));
}
