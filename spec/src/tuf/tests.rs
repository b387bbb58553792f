use super::*;
use serde_json::{Value, json};

#[test]
fn canonical_json_sorts_keys_and_escapes_only_quotes_and_backslashes() {
    let value = json!({"b": [1, true, null], "a": "x\"\\\n\u{fc}", "B": {}});
    assert_eq!(canonical(&value).unwrap(), "{\"B\":{},\"a\":\"x\\\"\\\\\n\u{fc}\",\"b\":[1,true,null]}".as_bytes());
    assert!(matches!(canonical(&json!(1.5)), Err(MetadataError::NotAnInteger)));
}

#[test]
fn times_round_trip_over_leap_years() {
    for (text, seconds) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T23:59:59Z", 951_868_799),
        ("2026-11-22T01:30:50Z", 1_795_311_050),
        ("9999-12-31T23:59:59Z", 253_402_300_799),
    ] {
        assert_eq!(text.parse::<Time>().unwrap(), Time(seconds), "{text}");
        assert_eq!(Time(seconds).to_string(), text);
    }
    for wrong in ["2025-02-29T00:00:00Z", "2025-01-01T00:00:00", "2025-01-01T24:00:00Z", "+025-01-01T00:00:00Z"] {
        assert!(wrong.parse::<Time>().is_err(), "{wrong}");
    }
}

#[test]
fn a_file_of_another_role_or_too_deep_or_too_long_is_refused() {
    let file = |signed: Value| serde_json::to_vec(&json!({"signatures": [], "signed": signed})).unwrap();
    let head = json!({"_type": "root", "spec_version": "1.0.0"});
    assert!(Envelope::parse(Role::Root, &file(head.clone())).is_ok());
    assert!(matches!(Envelope::parse(Role::Targets, &file(head)), Err(MetadataError::WrongType(_))));
    let mut deep = json!(1);
    for _ in 0..40 {
        deep = json!([deep]);
    }
    assert!(matches!(Envelope::parse(Role::Root, &file(deep)), Err(MetadataError::TooDeep)));
    let long = vec![b' '; Role::Timestamp.max_bytes() as usize + 1];
    assert!(matches!(Envelope::parse(Role::Timestamp, &long), Err(MetadataError::TooLong(_))));
}

#[test]
fn hostile_nesting_does_not_exhaust_the_stack() {
    let bytes = [b"{\"signatures\":[],\"signed\":".as_slice(), &[b'['; 50_000]].concat();
    assert!(matches!(Envelope::parse(Role::Root, &bytes), Err(MetadataError::Malformed(_))));
}

fn envelope(signed: Value) -> Result<Envelope, MetadataError> {
    let role = Role::ALL.into_iter().find(|role| signed["_type"] == role.name()).unwrap_or(Role::Root);
    Envelope::parse(role, &serde_json::to_vec(&json!({"signatures": [], "signed": signed})).unwrap())
}

fn root() -> Value {
    let keys = json!({"keyids": ["a"], "threshold": 1});
    json!({
        "_type": "root", "spec_version": "1.0.31", "version": 1, "expires": "2030-01-01T00:00:00Z", "keys": {},
        "roles": {"root": keys, "timestamp": keys, "snapshot": keys, "targets": keys},
    })
}

fn targets(delegations: Value) -> Value {
    json!({
        "_type": "targets", "spec_version": "1.0", "version": 1, "expires": "2030-01-01T00:00:00Z", "targets": {},
        "delegations": delegations,
    })
}

#[test]
fn only_the_first_major_version_of_the_specification_is_understood() {
    for (version, understood) in [
        ("1.0.0", true),
        ("1.0", true),
        ("1.7.12", true),
        ("1", false),
        ("2.0.0", false),
        ("10.0.0", false),
        ("1.x.0", false),
        ("1.0.0.0", false),
        ("", false),
    ] {
        let mut root = root();
        root["spec_version"] = version.into();
        assert_eq!(envelope(root).is_ok(), understood, "{version}");
    }
}

#[test]
fn keys_of_unknown_kinds_and_roles_of_unknown_names_do_not_fail_the_file() {
    let mut with = root();
    with["keys"] = json!({"a": {"keytype": "new"}, "b": {"keytype": 7, "scheme": [], "keyval": "x", "more": 1}});
    with["roles"]["mirrors"] = json!({"keyids": [], "threshold": 1});
    with["custom"] = json!({"a": 1});
    let read: Root = envelope(with).unwrap().read().unwrap();
    assert_eq!((read.keys.len(), read.roles.len()), (2, 5));
}

#[test]
fn a_root_names_keys_for_all_roles_with_thresholds_and_versions_above_nothing() {
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut root = root();
        change(&mut root);
        envelope(root).unwrap().read::<Root>().is_err()
    };
    assert!(!wrong(&|_| ()));
    assert!(wrong(&|root| root["version"] = 0.into()));
    assert!(wrong(&|root| root["version"] = (-1).into()));
    assert!(wrong(&|root| root["roles"]["targets"]["threshold"] = 0.into()));
    assert!(wrong(&|root| _ = root["roles"].as_object_mut().unwrap().remove("snapshot")));
    assert!(wrong(&|root| _ = root.as_object_mut().unwrap().remove("expires")));
}

#[test]
fn a_delegation_says_its_paths_in_one_way_and_takes_no_name_of_a_top_level_role() {
    let read = |roles: Value| envelope(targets(json!({"keys": {}, "roles": roles}))).unwrap().read::<Targets>();
    let role = |name: &str, more: Value| {
        let mut role = json!({"name": name, "keyids": ["a"], "threshold": 1});
        role.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        role
    };
    let paths = json!({"paths": ["*"]});
    assert!(read(json!([role("a", paths.clone()), role("b", json!({"path_hash_prefixes": ["0"]}))])).is_ok());
    assert!(read(json!([role("a", paths.clone()), role("a", paths.clone())])).is_err());
    assert!(read(json!([role("root", paths.clone())])).is_err());
    assert!(read(json!([role("", paths)])).is_err());
    assert!(read(json!([role("a", json!({}))])).is_err());
    assert!(read(json!([role("a", json!({"paths": [], "path_hash_prefixes": []}))])).is_err());
}

#[test]
fn a_delegation_covers_names_by_pattern_or_by_the_beginning_of_their_digest() {
    let role = |paths: Option<Vec<String>>, prefixes: Option<Vec<String>>| DelegatedRole {
        name: "a".into(),
        keys: RoleKeys::default(),
        terminating: false,
        paths,
        path_hash_prefixes: prefixes,
    };
    assert!(role(Some(vec!["x".into(), "*.md".into()]), None).covers("a.md", "00"));
    assert!(!role(Some(vec![]), None).covers("a.md", "00"));
    assert!(role(None, Some(vec!["ff".into(), "0a".into()])).covers("a.md", "0ab"));
    assert!(!role(None, Some(vec!["0b".into()])).covers("a.md", "0ab"));
}

#[test]
fn many_small_values_are_refused_before_they_take_memory() {
    let bytes = [b"{\"signatures\":[],\"signed\":[".as_slice(), &b"{\"\":0},".repeat(200_000), b"0]}"].concat();
    assert!(matches!(Envelope::parse(Role::Targets, &bytes), Err(MetadataError::TooMany)));
}
