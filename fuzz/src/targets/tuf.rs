//! Metadata of The Update Framework.

use keel_spec::tuf::{Envelope, Metadata, Role, Root, Snapshot, Targets, Time, Timestamp, canonical, encode, pattern};
use keel_updater::tuf::TrustedSet;
use keel_updater::tuf::keys::Keyring;

use super::answer;
use crate::runner::{Run, Target};

pub const TARGETS: [Target; 3] = [
    Target { name: "tuf_metadata", seeds: metadata_seeds, make: || Box::new(metadata), share: 1000 },
    Target { name: "tuf_root", seeds: || vec![ROOT.to_vec()], make: trusted_root, share: 300 },
    Target { name: "tuf_pattern", seeds: pattern_seeds, make: || Box::new(path_pattern), share: 1000 },
];

/// Three kinds of keys, all needed.
const ROOT: &[u8] = include_bytes!("../../../updater/tests/data/three-kinds.root.json");

fn metadata_seeds() -> Vec<Vec<u8>> {
    let signed = |signed: &str| {
        format!("{{\"signatures\":[{{\"keyid\":\"ab\",\"sig\":\"00ff\"}}],\"signed\":{signed}}}").into_bytes()
    };
    let head = |kind: &str| {
        format!("\"_type\":\"{kind}\",\"spec_version\":\"1.0.31\",\"version\":3,\"expires\":\"2030-01-01T00:00:00Z\"")
    };
    let file = r#"{"version":2,"length":12,"hashes":{"sha256":"00"}}"#;
    vec![
        ROOT.to_vec(),
        signed(&format!("{{{},\"meta\":{{\"snapshot.json\":{file}}}}}", head("timestamp"))),
        signed(&format!("{{{},\"meta\":{{\"targets.json\":{file},\"D.json\":{file}}}}}", head("snapshot"))),
        signed(&format!(
            "{{{},\"targets\":{{\"a/b\":{{\"length\":1,\"hashes\":{{\"sha256\":\"00\"}},\"custom\":{{\"x\":[1,\"\u{fc}\"]}}}}}},\
             \"delegations\":{{\"keys\":{{\"k\":{{\"keytype\":\"ed25519\",\"scheme\":\"ed25519\",\"keyval\":{{\"public\":\"00\"}}}}}},\
             \"roles\":[{{\"name\":\"D\",\"keyids\":[\"k\"],\"threshold\":1,\"terminating\":true,\"paths\":[\"a/*\"]}},\
             {{\"name\":\"E\",\"keyids\":[],\"threshold\":1,\"path_hash_prefixes\":[\"0\"]}}]}}}}",
            head("targets")
        )),
    ]
}

fn metadata(bytes: &[u8]) -> String {
    let mut answers = String::new();
    for role in Role::ALL {
        let envelope = match Envelope::parse(role, bytes) {
            Ok(envelope) => envelope,
            Err(error) => {
                answers.push_str(&error.to_string());
                continue;
            }
        };
        // Canonical JSON that can be read again means the same, so that nothing is signed but what is read.
        if let Ok(text) = envelope.signed_bytes()
            && let Ok(again) = serde_json::from_slice::<serde_json::Value>(&text)
        {
            assert_eq!(canonical(&again).ok(), Some(text), "canonical JSON is its own canonical form");
            assert_eq!(again, envelope.signed, "canonical JSON says the same");
        }
        answers.push_str(&match role {
            Role::Root => read::<Root>(&envelope, |root| {
                let _ = Keyring::of(root, Role::Root).map(|keys| keys.verify("root", "root.json", &envelope));
            }),
            Role::Timestamp => read::<Timestamp>(&envelope, |_| ()),
            Role::Snapshot => read::<Snapshot>(&envelope, |_| ()),
            Role::Targets => read::<Targets>(&envelope, |targets| {
                for role in targets.delegations.iter().flat_map(|delegations| &delegations.roles) {
                    role.covers("a/b", "00ff");
                    assert!(
                        encode::file_name(&role.name).is_none_or(|name| !name.contains('/') && !name.starts_with('.'))
                    );
                }
            }),
        });
    }
    answers
}

fn read<T: Metadata>(envelope: &Envelope, then: impl FnOnce(&T)) -> String {
    answer(envelope.read::<T>().inspect(then))
}

/// Only what was signed may be accepted, in whatever white space.
fn trusted_root() -> Run {
    let signed = |bytes: &[u8]| Envelope::parse(Role::Root, bytes).ok().map(|envelope| envelope.signed);
    let original = signed(ROOT);
    Box::new(move |bytes| {
        let outcome = TrustedSet::new(bytes, Time(0));
        assert!(outcome.is_err() || signed(bytes) == original, "what nobody signed is trusted");
        answer(outcome)
    })
}

fn pattern_seeds() -> Vec<Vec<u8>> {
    ["*.md\nREADME.md", "a/*/[a-c]?[!x]\na/b/bcd", "a*a*a*b\naaaaaaaaaaaa", "[]-]\n-"]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn path_pattern(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(&bytes[..bytes.len().min(4000)]) else { return "no text".into() };
    let (pattern, path) = text.split_once('\n').unwrap_or((text, text));
    let fits = pattern::matches(pattern, path);
    let plain = !pattern.contains(['*', '?', '[']);
    assert!(!plain || fits == (pattern == path), "a pattern without wildcards is a name");
    assert!(!encode::path(path).contains(['?', '#', ' ']) && !encode::segment(path).contains('/'));
    format!("{fits} {plain}")
}
