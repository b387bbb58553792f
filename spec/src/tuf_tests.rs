use super::*;
use serde_json::json;

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
    let bytes = [b"{\"signatures\":[],\"signed\":".as_slice(), &[b'['; 100_000]].concat();
    assert!(matches!(Envelope::parse(Role::Root, &bytes), Err(MetadataError::Malformed(_))));
}
