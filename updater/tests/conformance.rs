//! What public conformance suites ask of a client's command line: requests made, files trusted, exit status.

mod simulator;

use keel_spec::tuf::Time;
use serde_json::{Value, json};
use simulator::{LATER, PAST, Repository, Signer, TOP, sign, versions};

fn now() -> u64 {
    keel_updater::host::now_unix_s()
}

#[test]
fn a_refresh_asks_for_each_file_once_and_keeps_the_bytes_it_got() {
    let mut repository = Repository::new();
    let host = repository.host("basic");
    assert_eq!(host.init(), 0);
    assert!(repository.server.requests().is_empty());
    assert_eq!(host.refresh(), 0);
    let files = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"];
    assert_eq!(repository.server.requests(), files.map(|file| format!("metadata/{file}")));
    for role in TOP {
        assert_eq!(host.trusted(role).unwrap(), repository.published(role), "{role}");
    }
    // Again: nothing but a newer root and timestamp could be of interest.
    assert_eq!(host.refresh(), 0);
    assert_eq!(repository.server.requests(), ["metadata/2.root.json", "metadata/timestamp.json"]);
    // Without consistent snapshots, names have no versions.
    repository.role("root")["consistent_snapshot"] = false.into();
    repository.publish(&["root"]);
    repository.publish_all();
    assert_eq!(host.refresh(), 0);
    let files = ["2.root.json", "3.root.json", "timestamp.json", "snapshot.json", "targets.json"];
    assert_eq!(repository.server.requests(), files.map(|file| format!("metadata/{file}")));
    assert_eq!(host.init(), 0, "a second init changes no trust");
    assert_eq!((host.refresh(), host.version("root"), host.version("targets")), (0, Some(2), Some(2)));
}

#[test]
fn a_root_that_is_no_root_or_not_signed_is_not_initial_trust() {
    let repository = Repository::new();
    let mut host = repository.host("initial");
    let mut root: Value = serde_json::from_slice(&host.root).unwrap();
    root["signed"].as_object_mut().unwrap().remove("version");
    for wrong in [serde_json::to_vec(&root).unwrap(), sign(&repository.roles["root"], &[Signer::new()]), Vec::new()] {
        host.root = wrong;
        std::fs::write(host.folder.join("root.json"), &host.root).unwrap();
        assert_eq!(host.init(), 1);
        assert_eq!(host.refresh(), 1);
        assert!(repository.server.requests().is_empty());
    }
    assert_eq!(host.run(&["reticulate"]), 1);
    assert_eq!(host.run(&[]), 1);
}

#[test]
fn what_was_accepted_before_a_refused_role_stays_accepted_and_nothing_else() {
    for (role, trusted) in [
        ("root", versions(&[("root", 1)])),
        ("timestamp", versions(&[("root", 2)])),
        ("snapshot", versions(&[("root", 2), ("timestamp", 2)])),
        ("targets", versions(&[("root", 2), ("snapshot", 2), ("timestamp", 2)])),
    ] {
        let mut repository = Repository::new();
        let host = repository.host(&format!("unsigned-{role}"));
        repository.signers.get_mut(role).unwrap().clear();
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        assert_eq!((host.init(), host.refresh()), (0, 1));
        assert_eq!(host.all_trusted(), trusted, "unsigned {role}");
    }
    for (role, trusted) in [
        ("root", versions(&[("root", 1)])),
        ("snapshot", versions(&[("root", 2), ("timestamp", 2)])),
        ("targets", versions(&[("root", 2), ("snapshot", 2), ("timestamp", 2)])),
    ] {
        let mut repository = Repository::new();
        let host = repository.host(&format!("mismatch-{role}"));
        for each in ["root", "targets", "snapshot", "timestamp"] {
            repository.role(each)["version"] = if each == role { 3 } else { 2 }.into();
            repository.publish_as(each, 2);
        }
        assert_eq!((host.init(), host.refresh()), (0, 1));
        assert_eq!(host.all_trusted(), trusted, "the version of {role} isn't that of its name");
    }
}

#[test]
fn a_timestamp_of_the_same_version_changes_nothing_whatever_it_says() {
    let mut repository = Repository::new();
    let host = repository.host("same");
    assert_eq!((host.init(), host.refresh()), (0, 0));
    let kept = host.trusted("timestamp");
    repository.role("timestamp")["meta"]["snapshot.json"]["version"] = 100.into();
    repository.publish_as("timestamp", 1);
    assert_eq!(host.refresh(), 0);
    assert_eq!(repository.server.requests().last().unwrap(), "metadata/timestamp.json");
    assert_eq!(host.trusted("timestamp"), kept);
}

#[test]
fn lengths_and_digests_count_where_they_are_given() {
    let mut repository = Repository::new();
    repository.hashes = true;
    repository.publish_all();
    let host = repository.host("hashes");
    assert_eq!((host.init(), host.refresh()), (0, 0));
    repository.publish(&["targets"]);
    repository.role("snapshot")["meta"]["targets.json"]["hashes"]["sha256"] = "46".repeat(32).into();
    repository.publish(&["snapshot", "timestamp"]);
    assert_eq!(host.refresh(), 1);
    assert_eq!((host.version("snapshot"), host.version("targets")), (Some(3), Some(2)));
    repository.publish(&["targets"]);
    repository.role("snapshot")["meta"]["targets.json"]["length"] = 17.into();
    repository.publish(&["snapshot", "timestamp"]);
    assert_eq!((host.refresh(), host.version("targets")), (1, Some(2)));
}

#[test]
fn what_is_listed_but_missing_fails_the_refresh() {
    for (role, listed_in, trusted) in [
        ("snapshot", "timestamp", versions(&[("root", 1), ("snapshot", 1), ("targets", 1), ("timestamp", 2)])),
        ("targets", "snapshot", versions(&[("root", 1), ("snapshot", 2), ("targets", 1), ("timestamp", 2)])),
    ] {
        let mut repository = Repository::new();
        let host = repository.host(&format!("missing-{role}"));
        assert_eq!((host.init(), host.refresh()), (0, 0));
        repository.role(listed_in)["meta"][format!("{role}.json")]["version"] = 2.into();
        repository.publish(if role == "targets" { &["snapshot", "timestamp"] } else { &["timestamp"] });
        assert_eq!(host.refresh(), 1);
        assert_eq!(repository.server.requests().last().unwrap(), &format!("metadata/2.{role}.json"));
        assert_eq!(host.all_trusted(), trusted);
    }
    let repository = Repository::new();
    let host = repository.host("missing-timestamp");
    repository.server.remove("metadata/timestamp.json");
    assert_eq!((host.init(), host.refresh()), (0, 1));
}

#[test]
fn a_snapshot_signed_by_the_timestamp_key_is_no_timestamp() {
    let mut repository = Repository::new();
    let host = repository.host("type");
    let keys = [repository.signers["snapshot"][0].clone(), repository.signers["timestamp"][0].clone()];
    repository.set_keys("snapshot", &keys, 1);
    repository.role("snapshot")["meta"] = json!({"snapshot.json": {"version": 1}});
    repository.publish(&["root", "snapshot"]);
    repository.server.put("metadata/timestamp.json", repository.published("snapshot").to_vec());
    assert_eq!((host.init(), host.refresh()), (0, 1));
    assert_eq!(host.all_trusted(), versions(&[("root", 2)]));
}

#[test]
fn unknown_fields_and_keys_of_unknown_kinds_are_carried_along() {
    let mut repository = Repository::new();
    let host = repository.host("custom");
    repository.role("root")["roles"]["root"]["another-field"] = "value".into();
    repository.role("root").insert("custom-field".into(), json!({"a": [1, {"b": "\u{fc}\"\\\n"}]}));
    repository.role("root")["keys"]["new"] = json!({"keytype": "new", "keyval": {"extra": 1}});
    repository.role("root")["roles"]["root"]["keyids"].as_array_mut().unwrap().push("new".into());
    repository.publish(&["root"]);
    assert_eq!((host.init(), host.refresh(), host.version("root")), (0, 0, Some(2)));
}

#[test]
fn an_expired_role_is_refused_and_an_expired_root_is_kept_but_ends_the_refresh() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut repository = Repository::new();
        let host = repository.host(&format!("expired-{role}"));
        assert_eq!((host.init(), host.refresh()), (0, 0));
        repository.role(role)["expires"] = PAST.into();
        repository.publish_all();
        assert_eq!((host.refresh(), host.version(role)), (1, Some(1)), "{role}");
    }
    let mut repository = Repository::new();
    let host = repository.host("expired-root");
    assert_eq!((host.init(), host.refresh()), (0, 0));
    repository.role("root")["expires"] = PAST.into();
    repository.publish(&["root"]);
    repository.publish_all();
    assert_eq!(host.refresh(), 1);
    assert_eq!(host.all_trusted(), versions(&[("root", 2), ("snapshot", 1), ("targets", 1), ("timestamp", 1)]));
    // A newer one that hasn't expired mends it.
    repository.role("root")["expires"] = LATER.into();
    repository.publish(&["root"]);
    assert_eq!((host.refresh(), host.version("targets")), (0, Some(2)));
}

#[test]
fn what_has_expired_on_the_disk_is_replaced_but_never_relied_upon() {
    let days = |days: u64| Time(now() + days * 86_400);
    for role in TOP {
        let mut repository = Repository::new();
        repository.role(role)["expires"] = days(7).to_string().into();
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        let host = repository.host(&format!("old-{role}"));
        host.refresh_at(days(0)).unwrap();
        assert!(host.refresh_at(days(8)).is_err(), "{role}: the repository offers nothing newer");
        repository.role(role)["expires"] = days(21).to_string().into();
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        host.refresh_at(days(18)).unwrap();
        assert_eq!(host.version(role), Some(3));
    }
}

#[test]
fn versions_never_go_down_with_digests_and_without() {
    for hashes in [false, true] {
        for role in ["timestamp", "snapshot", "targets"] {
            let mut repository = Repository::new();
            repository.hashes = hashes;
            let host = repository.host(&format!("rollback-{role}-{hashes}"));
            repository.publish_all();
            assert_eq!((host.init(), host.refresh()), (0, 0));
            let (kept, before) = (host.trusted(role), host.version("timestamp"));
            // Version 1 again, in a publication that is new otherwise.
            repository.role(role)["version"] = 0.into();
            repository.publish(&[role]);
            match role {
                "targets" => repository.publish(&["snapshot", "timestamp"]),
                "snapshot" => repository.publish(&["timestamp"]),
                _ => {}
            }
            assert_eq!((host.refresh(), host.trusted(role)), (1, kept), "{role}");
            if role != "targets" {
                assert_eq!(host.version("timestamp"), before);
                assert_eq!(repository.server.requests().last().unwrap(), "metadata/timestamp.json");
            }
        }
    }
}

#[test]
fn new_keys_undo_a_fast_forward() {
    for role in ["timestamp", "snapshot", "targets"] {
        let mut repository = Repository::new();
        let host = repository.host(&format!("forward-{role}"));
        repository.role(role)["version"] = 99_998.into();
        repository.publish_all();
        assert_eq!((host.init(), host.refresh(), host.version(role)), (0, 0, Some(99_999)));
        // The keys of the role itself, and of those that list it.
        let rotated: &[&str] = match role {
            "timestamp" => &["timestamp"],
            "snapshot" => &["snapshot", "timestamp"],
            _ => &["snapshot"],
        };
        for role in rotated {
            repository.set_keys(role, &[Signer::new()], 1);
        }
        repository.publish(&["root"]);
        repository.role(role)["version"] = 0.into();
        repository.publish_all();
        assert_eq!((host.refresh(), host.version(role)), (0, Some(1)), "{role}");
    }
    // A further key takes none back: what was accepted stays so.
    let mut repository = Repository::new();
    let host = repository.host("forward-not");
    repository.publish_all();
    assert_eq!((host.init(), host.refresh()), (0, 0));
    let keys = [repository.signers["snapshot"][0].clone(), Signer::new()];
    repository.set_keys("snapshot", &keys, 1);
    repository.publish(&["root"]);
    repository.role("snapshot")["version"] = 0.into();
    repository.publish(&["snapshot", "timestamp"]);
    assert_eq!((host.refresh(), host.version("snapshot")), (1, Some(2)));
}

/// Keys, threshold and signers of one version of a role, by number.
type Version = (&'static [usize], u64, &'static [usize]);

#[test]
fn roots_are_followed_by_thresholds_of_the_old_keys_and_the_new() {
    const FIVE: &[usize] = &[0, 1, 2, 3, 4];
    let accepted: &[&[Version]] = &[
        &[(&[1], 1, &[1]), (&[2], 1, &[2, 1]), (&[2], 1, &[2])],
        &[(&[1], 1, &[3, 1, 4]), (&[2], 1, &[3, 2, 1, 4]), (&[2], 1, &[3, 2, 4])],
        &[(FIVE, 3, &[0, 2, 4]), (FIVE, 3, &[0, 4, 1]), (FIVE, 3, &[0, 1, 3]), (FIVE, 3, &[0, 1, 3])],
        &[(FIVE, 3, &[0, 2, 4]), (&[0, 1, 3, 4, 5], 3, &[0, 4, 1])],
        &[(FIVE, 3, &[0, 2, 4]), (&[0, 1, 3, 4, 5], 3, &[0, 2, 4, 5]), (&[0, 1, 3, 4, 5], 3, &[0, 4, 5])],
        &[(FIVE, 3, &[0, 2, 4]), (&[5, 6, 7, 8, 9], 3, &[0, 2, 4, 5, 6, 7]), (&[5, 6, 7, 8, 9], 3, &[5, 6, 7])],
        &[(&[1, 2, 3], 1, &[1]), (&[1, 2, 3], 2, &[1, 2])],
        &[(&[1, 2, 3], 2, &[1, 2]), (&[1, 2, 3], 1, &[1, 2]), (&[1, 2, 3], 1, &[1])],
        &[(&[1], 1, &[1]), (&[1, 2], 2, &[1, 2])],
    ];
    let refused: &[&[Version]] = &[
        &[(&[1], 1, &[1]), (&[2], 1, &[2, 3, 4])],
        &[(&[1], 1, &[1]), (&[2], 1, &[1, 3, 4])],
        &[(FIVE, 3, &[0, 2, 4]), (&[0, 1, 3, 4, 5], 3, &[0, 2, 4])],
        &[(FIVE, 3, &[0, 2, 4]), (&[0, 1, 3, 4, 5], 3, &[0, 4, 5])],
        &[(&[1, 2, 3], 1, &[1]), (&[1, 2, 3], 2, &[2])],
        &[(&[1, 2, 3], 2, &[1, 2]), (&[1, 2, 3], 1, &[1])],
    ];
    let cases = accepted.iter().map(|case| (case, true)).chain(refused.iter().map(|case| (case, false)));
    for (number, (case, good)) in cases.enumerate() {
        let signers: Vec<_> = (0..10).map(|_| Signer::new()).collect();
        let of = |numbers: &[usize]| numbers.iter().map(|&number| signers[number].clone()).collect::<Vec<_>>();
        let mut repository = Repository::new();
        repository.role("root")["version"] = 0.into();
        let mut published = Vec::new();
        let mut host = None;
        for (keys, threshold, signed_by) in *case {
            repository.set_keys("root", &of(keys), *threshold);
            repository.signers.insert("root".into(), of(signed_by));
            repository.publish(&["root"]);
            published.push(repository.published("root").to_vec());
            host.get_or_insert_with(|| repository.host(&format!("rotation-{number}")));
        }
        let host = host.unwrap();
        assert_eq!((host.init(), host.refresh()), (0, if good { 0 } else { 1 }), "case {number}");
        let expected = &published[published.len() - if good { 1 } else { 2 }];
        assert_eq!(host.trusted("root").as_ref(), Some(expected), "case {number}");
    }
}

#[test]
fn other_roles_need_their_threshold_of_different_keys() {
    const FIVE: &[usize] = &[0, 1, 2, 3, 4];
    let cases: &[(Version, bool)] = &[
        ((&[2], 1, &[2]), true),
        ((&[1], 1, &[3, 1, 4]), true),
        ((&[2], 1, &[1, 3, 4]), false),
        ((&[0, 1, 3, 4, 5], 3, &[0, 2, 4]), false),
        ((&[0, 1, 3, 4, 5], 3, &[0, 4]), false),
        ((FIVE, 3, &[0, 2, 4]), true),
        ((FIVE, 3, &[2, 3, 4]), true),
        ((FIVE, 6, FIVE), false),
        ((&[0, 0, 0], 2, &[0, 0, 0]), false),
    ];
    for (number, ((keys, threshold, signed_by), good)) in cases.iter().enumerate() {
        let signers: Vec<_> = (0..6).map(|_| Signer::new()).collect();
        let of = |numbers: &[usize]| numbers.iter().map(|&number| signers[number].clone()).collect::<Vec<_>>();
        let mut repository = Repository::new();
        let host = repository.host(&format!("threshold-{number}"));
        for role in ["timestamp", "snapshot", "targets"] {
            repository.set_keys(role, &of(keys), *threshold);
            repository.signers.insert(role.into(), of(signed_by));
        }
        repository.publish(&["root", "targets", "snapshot", "timestamp"]);
        assert_eq!((host.init(), host.refresh()), (0, if *good { 0 } else { 1 }), "case {number}");
        assert_eq!(host.trusted("timestamp").is_some(), *good);
        assert_eq!(host.version("root"), Some(2));
    }
}
