//! Which role is asked for which target, in which order; and what becomes of the target.

mod simulator;

use keel_spec::tuf::Time;
use keel_updater::tuf::keys::{sha256_hex, to_hex};
use serde_json::{Value, json};
use simulator::{Host, PAST, Repository, Signer, versions};

/// What delegated roles were asked for since the last call, without their versions.
fn asked(repository: &Repository) -> Vec<String> {
    const TOP: [&str; 4] = ["root.json", "timestamp.json", "snapshot.json", "targets.json"];
    let requests = repository.server.requests().into_iter();
    let roles = requests.filter(|path| path.starts_with("metadata/") && !TOP.iter().any(|top| path.ends_with(top)));
    roles.map(|path| path["metadata/1.".len()..].trim_end_matches(".json").to_owned()).collect()
}

fn initialised(repository: &Repository, name: &str) -> Host {
    let host = repository.host(name);
    assert_eq!(host.init(), 0);
    host
}

#[test]
fn roles_are_visited_depth_first_and_in_order_until_one_terminates() {
    let all = || json!({"paths": ["*"]});
    let python = || json!({"paths": ["*.py"]});
    let ends = || json!({"paths": ["*"], "terminating": true});
    type Graph = Vec<(&'static str, &'static str, Value)>;
    let graphs: Vec<(Graph, &[&str])> = vec![
        (vec![("targets", "A", all())], &["A"]),
        (vec![("targets", "A", all()), ("targets", "B", all())], &["A", "B"]),
        (vec![("targets", "A", all()), ("targets", "B", all()), ("B", "C", all())], &["A", "B", "C"]),
        (
            vec![("targets", "A", all()), ("targets", "B", all()), ("A", "C", all()), ("A", "D", all())],
            &["A", "C", "D", "B"],
        ),
        (
            vec![("targets", "A", all()), ("targets", "B", all()), ("A", "C", all()), ("C", "D", all())],
            &["A", "C", "D", "B"],
        ),
        (vec![("targets", "A", all()), ("targets", "B", all()), ("A", "C", ends()), ("A", "D", all())], &["A", "C"]),
        (
            vec![("targets", "A", all()), ("targets", "B", all()), ("A", "C", ends()), ("C", "D", all())],
            &["A", "C", "D"],
        ),
        (vec![("targets", "A", python()), ("targets", "B", all()), ("A", "C", all())], &["B"]),
        (vec![("targets", "A", all()), ("targets", "B", all()), ("A", "C", python()), ("C", "D", all())], &["A", "B"]),
        (
            vec![
                ("targets", "A", all()),
                ("targets", "B", all()),
                ("B", "C", all()),
                ("C", "D", all()),
                ("D", "B", all()),
            ],
            &["A", "B", "C", "D"],
        ),
        (
            vec![("targets", "A", all()), ("targets", "B", all()), ("B", "C", all()), ("A", "C", all())],
            &["A", "C", "B"],
        ),
        (
            vec![("targets", "A", all()), ("targets", "B", all()), ("B", "C", all()), ("A", "C", python())],
            &["A", "B", "C"],
        ),
    ];
    for (number, (graph, order)) in graphs.into_iter().enumerate() {
        let mut repository = Repository::new();
        for (by, to, how) in graph {
            repository.delegate(by, to, how);
        }
        repository.publish_all();
        let host = initialised(&repository, &format!("graph-{number}"));
        assert_eq!(host.download("missingpath"), 1);
        assert_eq!(asked(&repository), order, "graph {number}");
        // What was accepted isn't fetched again.
        assert_eq!(host.download("missingpath"), 1);
        assert!(asked(&repository).is_empty(), "graph {number}");
    }
}

#[test]
fn a_target_counts_only_if_every_role_on_the_way_is_trusted_with_it() {
    let mut repository = Repository::new();
    repository.delegate("targets", "A", json!({"paths": ["*.doc", "*.md"]}));
    repository.delegate("targets", "B", json!({"paths": ["releases/*/*"]}));
    repository.delegate("B", "C", json!({"paths": ["releases/x/*"]}));
    repository.delegate("B", "D", json!({"paths": ["releases/y/*.zip"]}));
    repository.add("targets", "targetfile", b"by targets");
    repository.add("A", "README.md", b"by A");
    repository.add("C", "releases/x/x_v1", b"by C");
    repository.add("D", "releases/y/y_v1.zip", b"by D");
    repository.add("D", "releases/z/z_v1.zip", b"not D's to say");
    repository.publish_all();
    for (target, found, order) in [
        ("targetfile", true, &[][..]),
        ("README.md", true, &["A"]),
        ("releases/x/x_v1", true, &["B", "C"]),
        ("releases/y/y_v1.zip", true, &["B", "D"]),
        ("releases/z/z_v1.zip", false, &["B"]),
    ] {
        let host = initialised(&repository, &format!("search-{}", target.replace('/', "-")));
        repository.server.requests();
        assert_eq!(host.download(target), if found { 0 } else { 1 }, "{target}");
        assert_eq!(host.downloaded().len(), usize::from(found));
        assert_eq!(asked(&repository), order, "{target}");
    }
    let host = initialised(&repository, "search-several");
    assert_eq!(host.run(&["--target-name", "targetfile", "--target-name=README.md", "download"]), 0);
    assert_eq!(host.downloaded(), [b"by A".to_vec(), b"by targets".to_vec()]);
    assert_eq!(host.run(&["--target-name", "targetfile", "--target-name", "nothing", "download"]), 1);
}

#[test]
fn names_are_divided_among_roles_by_the_beginning_of_their_digest() {
    let mut repository = Repository::new();
    let digest = sha256_hex(b"file.txt");
    let others: Vec<String> = (0..16).map(|n| format!("{n:x}")).filter(|prefix| !digest.starts_with(prefix)).collect();
    repository.delegate("targets", "others", json!({"path_hash_prefixes": others}));
    repository.delegate("targets", "bin", json!({"path_hash_prefixes": [digest[..3].to_owned()]}));
    repository.add("bin", "file.txt", b"hashed");
    repository.add("others", "file.txt", b"not theirs");
    repository.publish_all();
    let host = initialised(&repository, "bins");
    assert_eq!(host.download("file.txt"), 0);
    assert_eq!((asked(&repository), host.downloaded()), (vec!["bin".to_owned()], vec![b"hashed".to_vec()]));
}

#[test]
fn a_delegated_role_is_held_to_all_that_a_top_level_one_is() {
    type Change = (&'static str, fn(&mut Repository));
    let changes: [Change; 6] = [
        ("expired", |it| it.role("D")["expires"] = PAST.into()),
        ("unsigned", |it| it.signers.get_mut("D").unwrap().clear()),
        ("by another key", |it| _ = it.signers.insert("D".into(), vec![Signer::new()])),
        ("of another type", |it| it.role("D")["_type"] = "snapshot".into()),
        ("another version", |it| it.role("D")["version"] = 7.into()),
        ("malformed", |it| it.role("D")["targets"] = 1.into()),
    ];
    for (number, (what, change)) in changes.into_iter().enumerate() {
        let mut repository = Repository::new();
        repository.delegate("targets", "D", json!({"paths": ["d/*"]}));
        repository.add("D", "d/file", b"content");
        repository.role("D")["version"] = 1.into();
        change(&mut repository);
        repository.publish_as("D", 1);
        repository.publish(&["targets", "snapshot", "timestamp"]);
        let host = initialised(&repository, &format!("delegated-{number}"));
        assert_eq!((host.refresh(), host.download("d/file")), (0, 1), "{what}");
        assert!(host.downloaded().is_empty() && host.version("D").is_none(), "{what}");
    }
}

#[test]
fn a_delegated_role_that_expired_on_the_disk_is_replaced_or_not_used() {
    let days = |days: u64| Time(keel_updater::host::now_unix_s() + days * 86_400);
    let mut repository = Repository::new();
    repository.delegate("targets", "D", json!({"paths": ["d/*"]}));
    repository.role("D")["expires"] = days(7).to_string().into();
    repository.add("D", "d/file", b"content");
    repository.publish_all();
    let host = repository.host("delegated-old");
    let (source, store) = (host.source(), host.store());
    let find = |day: u64| {
        let client = host.client(&source, &store);
        client.refresh(days(day)).and_then(|set| client.find(&set, "d/file"))
    };
    assert!(find(0).unwrap().is_some());
    assert!(find(8).is_err());
    repository.role("D")["expires"] = days(21).to_string().into();
    repository.publish_all();
    assert!(find(18).unwrap().is_some());
    assert_eq!(host.version("D"), Some(2));
}

#[test]
fn delegated_roles_may_not_vanish_from_the_snapshot_nor_go_back() {
    let mut repository = Repository::new();
    repository.delegate("targets", "D", json!({"paths": ["*"]}));
    repository.publish_all();
    repository.publish_all();
    let host = initialised(&repository, "delegated-back");
    assert_eq!(host.refresh(), 0);
    let meta = repository.role("snapshot")["meta"].clone();
    repository.role("snapshot")["meta"].as_object_mut().unwrap().remove("D.json");
    repository.publish(&["snapshot", "timestamp"]);
    assert_eq!((host.refresh(), host.version("snapshot")), (1, Some(3)));
    repository.role("snapshot")["meta"] = meta;
    repository.role("snapshot")["meta"]["D.json"]["version"] = 1.into();
    repository.publish(&["snapshot", "timestamp"]);
    assert_eq!((host.refresh(), host.version("snapshot")), (1, Some(3)));
}

#[test]
fn role_names_are_quoted_in_addresses_and_never_leave_the_folder() {
    for (role, quoted) in [
        ("?", "%3F"),
        ("#", "%23"),
        ("/delegatedrole", "%2Fdelegatedrole"),
        ("../delegatedrole", "..%2Fdelegatedrole"),
        ("..", ".."),
        ("ü ", "%C3%BC%20"),
    ] {
        let mut repository = Repository::new();
        repository.delegate("targets", role, json!({"paths": ["*"]}));
        repository.publish_all();
        let host = initialised(&repository, "role-name");
        assert_eq!(host.download("nonexistent"), 1);
        assert_eq!(asked(&repository), [quoted]);
        assert_eq!(host.all_trusted().len(), 5, "{role}");
        assert!(!host.folder.join("delegatedrole.json").exists());
    }
    let mut repository = Repository::new();
    repository.delegate("targets", &"x".repeat(220), json!({"paths": ["*"]}));
    repository.publish_all();
    let host = initialised(&repository, "role-name-long");
    assert_eq!(host.download("nonexistent"), 1);
    assert_eq!((asked(&repository).len(), host.all_trusted().len()), (1, 4), "asked for, but not kept");
}

#[test]
fn more_delegations_than_any_repository_needs_end_the_search() {
    let mut repository = Repository::new();
    let name = |number: usize| if number == 0 { "targets".to_owned() } else { format!("role{number}") };
    for number in 0..80 {
        repository.delegate(&name(number), &name(number + 1), json!({"paths": ["*"]}));
    }
    repository.publish_all();
    let host = initialised(&repository, "delegated-many");
    assert_eq!(host.download("nonexistent"), 1);
    assert_eq!(asked(&repository).len(), keel_updater::tuf::client::MAX_DELEGATED);
}

#[test]
fn targets_are_kept_and_not_fetched_twice_and_never_replaced_by_wrong_ones() {
    let mut repository = Repository::new();
    repository.add("targets", "dir/file.txt", b"first");
    repository.add("targets", "other", b"other");
    repository.publish_all();
    let host = initialised(&repository, "kept");
    assert_eq!((host.download("dir/file.txt"), host.downloaded()), (0, vec![b"first".to_vec()]));
    repository.server.requests();
    assert_eq!(host.download("dir/file.txt"), 0);
    assert!(!repository.server.requests().iter().any(|path| path.starts_with("targets/")), "it is there already");
    // Others' content under the right names: as long, longer, shorter, none.
    for wrong in [&b"fir5t"[..], b"first and more", b"fi", b""] {
        for name in ["dir/file.txt", "other"] {
            let digest = sha256_hex(if name == "other" { b"other" } else { b"first" });
            repository.serve_target(name, &digest, wrong);
        }
        host.download("dir/file.txt");
        assert_eq!(host.download("other"), 1);
        assert_eq!(host.downloaded(), [b"first".to_vec()]);
    }
    // Changed on the disk, and changed by its owner: fetched again, to the same place.
    repository.add("targets", "dir/file.txt", b"second");
    repository.publish_all();
    assert_eq!((host.download("dir/file.txt"), host.downloaded()), (0, vec![b"second".to_vec()]));
    let place = keel_updater::tuf::download::place(&host.folder.join("targets"), "dir/file.txt");
    std::fs::write(place, b"rotten").unwrap();
    assert_eq!((host.download("dir/file.txt"), host.downloaded()), (0, vec![b"second".to_vec()]));
}

#[test]
fn targets_are_checked_by_every_digest_that_is_known_and_there_must_be_one() {
    let sha512 = to_hex(ring::digest::digest(&ring::digest::SHA512, b"content").as_ref());
    let sha256 = sha256_hex(b"content");
    for (number, (hashes, good)) in [
        (json!({"sha512": sha512}), true),
        (json!({"sha256": sha256, "sha512": sha512}), true),
        (json!({"sha256": sha256, "sha512": "00"}), false),
        (json!({"unknown-hash": sha512}), false),
        (json!({}), false),
    ]
    .into_iter()
    .enumerate()
    {
        let mut repository = Repository::new();
        repository.add("targets", "file", b"content");
        repository.role("targets")["targets"]["file"]["hashes"] = hashes;
        repository.serve_target("file", &sha512, b"content");
        repository.publish_all();
        let host = initialised(&repository, &format!("digests-{number}"));
        assert_eq!((host.download("file"), host.downloaded().len()), if good { (0, 1) } else { (1, 0) });
    }
}

#[test]
fn target_names_may_hold_anything_with_consistent_snapshots_and_without() {
    for consistent in [true, false] {
        let mut repository = Repository::new();
        repository.role("root")["consistent_snapshot"] = consistent.into();
        let names = ["a b.txt", "dir/sub/100%?.txt", "ü#.bin", "+&=;,", ".hidden", &"long".repeat(60)];
        for name in names {
            repository.add("targets", name, name.as_bytes());
        }
        repository.publish(&["root"]);
        repository.publish_all();
        let host = initialised(&repository, &format!("names-{consistent}"));
        for name in names {
            assert_eq!(host.download(name), 0, "{name}");
        }
        assert_eq!(host.downloaded().len(), names.len());
        let requests = repository.server.requests();
        let prefixed =
            requests.iter().filter(|path| path.starts_with("targets/") && path.contains(&sha256_hex(b"a b.txt")));
        assert_eq!(prefixed.count(), usize::from(consistent));
        assert!(host.all_trusted().starts_with(&versions(&[("root", 2)])));
    }
}
