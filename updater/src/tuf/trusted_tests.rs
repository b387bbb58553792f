//! Attacks on the metadata, one by one. Files are made and signed here with ring, independently of the publisher.

use std::collections::BTreeMap;

use keel_spec::api::ErrorCode;
use keel_spec::tuf::{Key, KeyValue, RoleKeys, SPEC_VERSION, Signature, canonical};

use crate::tuf::keys;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const NOW: Time = Time(1_000_000);
const LATER: Time = Time(2_000_000);

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.as_ref()).unwrap())
    }

    fn key(&self) -> Key {
        let public = keys::to_hex(self.0.public_key().as_ref());
        Key { keytype: "ed25519".into(), scheme: "ed25519".into(), keyval: KeyValue { public } }
    }

    fn id(&self) -> String {
        keys::sha256_hex(&canonical(&serde_json::to_value(self.key()).unwrap()).unwrap())
    }
}

fn sign(signed: Value, by: &[&Signer]) -> Vec<u8> {
    let message = canonical(&signed).unwrap();
    let signatures: Vec<_> = by
        .iter()
        .map(|signer| Signature { keyid: signer.id(), sig: keys::to_hex(signer.0.sign(&message).as_ref()) })
        .collect();
    serde_json::to_vec(&json!({"signatures": signatures, "signed": signed})).unwrap()
}

/// Keys of the four roles; root and targets need two signatures.
struct Owner {
    root: [Signer; 3],
    timestamp: Signer,
    snapshot: Signer,
    targets: [Signer; 2],
}

impl Owner {
    fn new() -> Self {
        let new = Signer::new;
        Self { root: [new(), new(), new()], timestamp: new(), snapshot: new(), targets: [new(), new()] }
    }

    fn root_value(&self, version: u64, expires: Time) -> Value {
        let roles = [
            (Role::Root, self.root.iter().collect::<Vec<_>>(), 2),
            (Role::Timestamp, vec![&self.timestamp], 1),
            (Role::Snapshot, vec![&self.snapshot], 1),
            (Role::Targets, self.targets.iter().collect(), 2),
        ];
        let mut root = Root {
            kind: Role::Root,
            spec_version: SPEC_VERSION.into(),
            version,
            expires,
            consistent_snapshot: true,
            keys: BTreeMap::new(),
            roles: BTreeMap::new(),
        };
        for (role, signers, threshold) in roles {
            let keyids = signers.iter().map(|signer| signer.id()).collect();
            root.roles.insert(role.to_string(), RoleKeys { keyids, threshold });
            root.keys.extend(signers.iter().map(|signer| (signer.id(), signer.key())));
        }
        serde_json::to_value(root).unwrap()
    }

    fn root(&self, version: u64) -> Vec<u8> {
        sign(self.root_value(version, LATER), &[&self.root[0], &self.root[1]])
    }

    fn timestamp(&self, version: u64, snapshot_version: u64, snapshot: &[u8], expires: Time) -> Vec<u8> {
        let meta = json!({"snapshot.json": meta_of(snapshot_version, snapshot)});
        sign(role("timestamp", version, expires, json!({"meta": meta})), &[&self.timestamp])
    }

    fn snapshot(&self, version: u64, targets_version: u64, targets: &[u8], expires: Time) -> Vec<u8> {
        let meta = json!({"targets.json": meta_of(targets_version, targets)});
        sign(role("snapshot", version, expires, json!({"meta": meta})), &[&self.snapshot])
    }

    fn targets(&self, version: u64, expires: Time) -> Vec<u8> {
        let targets = json!({"targets": {"a": {"length": 1, "hashes": {"sha256": "0".repeat(64)}}}});
        sign(role("targets", version, expires, targets), &[&self.targets[0], &self.targets[1]])
    }

    /// A whole publication: timestamp, snapshot, targets, all of this version.
    fn publication(&self, version: u64) -> [Vec<u8>; 3] {
        let targets = self.targets(version, LATER);
        let snapshot = self.snapshot(version, version, &targets, LATER);
        [self.timestamp(version, version, &snapshot, LATER), snapshot, targets]
    }
}

fn meta_of(version: u64, bytes: &[u8]) -> Value {
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": keys::sha256_hex(bytes)}})
}

fn role(kind: &str, version: u64, expires: Time, more: Value) -> Value {
    let mut value = json!({"_type": kind, "spec_version": SPEC_VERSION, "version": version, "expires": expires});
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

fn set(owner: &Owner) -> TrustedSet {
    TrustedSet::new(&owner.root(1), NOW).unwrap()
}

fn code(outcome: Result<impl Sized, Error>) -> ErrorCode {
    match outcome {
        Ok(_) => panic!("accepted"),
        Err(error) => error.code(),
    }
}

#[test]
fn a_publication_is_trusted_in_order_and_only_in_order() {
    let owner = Owner::new();
    let [timestamp, snapshot, targets] = owner.publication(1);
    let mut set = set(&owner);
    assert!(set.update_snapshot(&snapshot).is_err());
    assert!(set.update_targets(&targets).is_err());
    set.update_timestamp(&timestamp).unwrap();
    assert!(set.update_root(&owner.root(2)).is_err());
    set.update_snapshot(&snapshot).unwrap();
    assert!(set.targets().is_none());
    set.update_targets(&targets).unwrap();
    assert!(set.targets().unwrap().contains_key("a"));
}

#[test]
fn a_signature_by_another_key_or_over_other_bytes_is_refused() {
    let (owner, other) = (Owner::new(), Owner::new());
    let mut set = set(&owner);
    assert_eq!(code(set.update_timestamp(&other.publication(1)[0])), ErrorCode::Signature);
    let changed = String::from_utf8(owner.publication(1)[0].clone()).unwrap().replace("\"version\":1", "\"version\":2");
    assert_eq!(code(set.update_timestamp(changed.as_bytes())), ErrorCode::Signature);
}

#[test]
fn one_key_signing_twice_is_not_two_keys() {
    let owner = Owner::new();
    let value = owner.root_value(1, LATER);
    let twice = sign(value.clone(), &[&owner.root[0], &owner.root[0]]);
    assert_eq!(code(TrustedSet::new(&twice, NOW)), ErrorCode::Signature);
    assert_eq!(code(TrustedSet::new(&sign(value.clone(), &[&owner.root[0]]), NOW)), ErrorCode::Signature);
    // The same key again under another ID, and that ID's own signature: IDs are names (TAP 12), keys count.
    let mut doubled = value;
    doubled["keys"]["f00d"] = serde_json::to_value(owner.root[0].key()).unwrap();
    doubled["roles"]["root"]["keyids"].as_array_mut().unwrap().push("f00d".into());
    let mut file: Value = serde_json::from_slice(&sign(doubled.clone(), &[&owner.root[0]])).unwrap();
    let mut again = file["signatures"][0].clone();
    again["keyid"] = "f00d".into();
    file["signatures"].as_array_mut().unwrap().push(again);
    assert_eq!(code(TrustedSet::new(&serde_json::to_vec(&file).unwrap(), NOW)), ErrorCode::Signature);
    assert!(TrustedSet::new(&sign(doubled, &[&owner.root[0], &owner.root[1]]), NOW).is_ok());
}

#[test]
fn a_key_of_one_role_signs_nothing_for_another() {
    let owner = Owner::new();
    let [_, snapshot, _] = owner.publication(1);
    let meta = json!({"meta": {"snapshot.json": meta_of(1, &snapshot)}});
    let by_snapshot_key = sign(role("timestamp", 1, LATER, meta), &[&owner.snapshot]);
    assert_eq!(code(set(&owner).update_timestamp(&by_snapshot_key)), ErrorCode::Signature);
}

#[test]
fn what_has_expired_is_refused_whichever_role_it_is() {
    let owner = Owner::new();
    let expired_root = sign(owner.root_value(1, NOW), &[&owner.root[0], &owner.root[1]]);
    let old = TrustedSet::new(&expired_root, NOW).unwrap();
    assert_eq!(code(old.finish_root()), ErrorCode::Expired);
    let targets = owner.targets(1, NOW);
    let snapshot = owner.snapshot(1, 1, &targets, NOW);
    let frozen = owner.timestamp(1, 1, &snapshot, NOW);
    assert_eq!(code(set(&owner).update_timestamp(&frozen)), ErrorCode::Expired);
    let mut with = set(&owner);
    with.update_timestamp(&owner.timestamp(1, 1, &snapshot, LATER)).unwrap();
    assert_eq!(code(with.update_snapshot(&snapshot)), ErrorCode::Expired);
    let snapshot = owner.snapshot(1, 1, &targets, LATER);
    let mut with = set(&owner);
    with.update_timestamp(&owner.timestamp(1, 1, &snapshot, LATER)).unwrap();
    with.update_snapshot(&snapshot).unwrap();
    assert_eq!(code(with.update_targets(&targets)), ErrorCode::Expired);
}

#[test]
fn versions_never_go_down() {
    let owner = Owner::new();
    let [timestamp, snapshot, _] = owner.publication(5);
    let remembering = || {
        let mut set = set(&owner);
        set.remember(Some(&timestamp), Some(&snapshot));
        set
    };
    assert_eq!(code(remembering().update_timestamp(&owner.publication(4)[0])), ErrorCode::Rollback);
    // A newer timestamp of an older snapshot.
    let older = owner.publication(4)[1].clone();
    assert_eq!(code(remembering().update_timestamp(&owner.timestamp(6, 4, &older, LATER))), ErrorCode::Rollback);
    // A newer snapshot of older targets.
    let newer = owner.snapshot(6, 4, &owner.targets(4, LATER), LATER);
    let mut set = remembering();
    set.update_timestamp(&owner.timestamp(6, 6, &newer, LATER)).unwrap();
    assert_eq!(code(set.update_snapshot(&newer)), ErrorCode::Rollback);
    // The same publication again is fine, and another one under the same version is not looked at.
    let mut set = remembering();
    assert_eq!(set.update_timestamp(&timestamp).unwrap(), NewTimestamp::Same);
    assert_eq!(set.update_timestamp(&owner.timestamp(5, 9, b"", LATER)).unwrap(), NewTimestamp::Same);
    assert_eq!(set.snapshot_meta().unwrap().version, 5);
}

#[test]
fn files_of_different_publications_cannot_be_mixed() {
    let owner = Owner::new();
    let ([timestamp, snapshot, _], [_, newer, targets]) = (owner.publication(1), owner.publication(2));
    let mut set = set(&owner);
    set.update_timestamp(&timestamp).unwrap();
    assert_eq!(code(set.update_snapshot(&newer)), ErrorCode::Digest);
    set.update_snapshot(&snapshot).unwrap();
    assert_eq!(code(set.update_targets(&targets)), ErrorCode::Digest);
    // A version that isn't the one promised, where no digest is given.
    let mut set = TrustedSet::new(&owner.root(1), NOW).unwrap();
    let meta = json!({"meta": {"snapshot.json": {"version": 3}}});
    set.update_timestamp(&sign(role("timestamp", 1, LATER, meta), &[&owner.timestamp])).unwrap();
    assert!(matches!(set.update_snapshot(&snapshot).unwrap_err().problem, Problem::Version { got: 1, want: 3, .. }));
}

#[test]
fn roots_follow_one_by_one_signed_by_the_old_keys_and_the_new() {
    let (owner, mut heir) = (Owner::new(), Owner::new());
    let mut set = set(&owner);
    assert_eq!(code(set.update_root(&owner.root(1))), ErrorCode::Rollback);
    assert_eq!(code(set.update_root(&owner.root(3))), ErrorCode::Digest);
    assert_eq!(code(set.update_root(&heir.root(2))), ErrorCode::Signature);
    let value = heir.root_value(2, LATER);
    let (old, new) = (&owner.root, &heir.root);
    assert_eq!(code(set.update_root(&sign(value.clone(), &[&old[0], &old[1]]))), ErrorCode::Signature);
    let both = sign(value, &[&old[0], &old[1], &new[0], &new[1]]);
    assert_eq!(set.update_root(&both).unwrap(), NewRoot { version: 2, forget: true });
    // Now only the new keys count.
    assert_eq!(code(set.update_timestamp(&owner.publication(1)[0])), ErrorCode::Signature);
    heir.targets.swap(0, 1);
    set.update_timestamp(&heir.publication(1)[0]).unwrap();
}

#[test]
fn a_new_timestamp_key_undoes_an_enormous_version_by_a_stolen_one() {
    let mut owner = Owner::new();
    let [stolen, snapshot, _] = owner.publication(u64::MAX);
    let mut set = set(&owner);
    owner.timestamp = Signer::new();
    assert!(set.update_root(&owner.root(2)).unwrap().forget);
    // Even if it is still on the disk, the new root doesn't vouch for it.
    set.remember(Some(&stolen), None);
    set.update_timestamp(&owner.publication(1)[0]).unwrap();
    let _ = snapshot;
}

#[test]
fn hostile_bytes_are_refused_and_leave_the_set_as_it_was() {
    let owner = Owner::new();
    let [timestamp, ..] = owner.publication(1);
    let mut set = set(&owner);
    for cut in 0..timestamp.len() {
        assert!(set.update_timestamp(&timestamp[..cut]).is_err());
    }
    let long = vec![b' '; Role::Timestamp.max_bytes() as usize + 1];
    assert!(set.update_timestamp(&long).is_err());
    assert!(set.update_timestamp(&owner.publication(1)[1]).is_err());
    set.update_timestamp(&timestamp).unwrap();
}

#[test]
fn a_message_names_the_file_and_what_to_do() {
    let owner = Owner::new();
    let frozen = owner.timestamp(1, 1, b"", Time(0));
    let message = set(&owner).update_timestamp(&frozen).unwrap_err().to_string();
    assert_eq!(
        message,
        "timestamp.json expired on 1970-01-01 00:00 UTC, this host's clock says 1970-01-12 13:46 UTC: \
         publish a fresh one with keel-image publish"
    );
}
