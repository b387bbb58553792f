use super::*;
use keel_spec::verity::RootHash;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn target(custom: Option<serde_json::Value>) -> TargetFile {
    TargetFile { length: 1, hashes: BTreeMap::new(), custom }
}

fn targets(versions: &[&str]) -> BTreeMap<String, TargetFile> {
    versions.iter().map(|text| (format!("keel-cloud-{text}.json"), target(None))).collect()
}

fn release(of: &Version, follows: Option<&str>) -> Release {
    Release {
        version: of.clone(),
        profile: "cloud".into(),
        built_unix_s: 0,
        root_hash: RootHash::new([0; 32]),
        root_blocks: 1,
        tree_bytes: 0,
        uki_bytes: 0,
        uki_blocks_bytes: None,
        follows_at_least: follows.map(version),
    }
}

fn bad(text: &str) -> Vec<BadRelease> {
    vec![BadRelease { version: version(text), reason: "kernel panic".into(), at_unix_s: 0 }]
}

fn host<'a>(running: &'a Version, bad: &'a [BadRelease], channel: &'a Channel) -> Host<'a> {
    Host { running, profile: "cloud", bad, minimum: None, channel, pin: None }
}

fn chosen(host: &Host, targets: &BTreeMap<String, TargetFile>) -> Option<Version> {
    newest(host, targets, |_, _| true, |of| Ok(release(of, None))).unwrap().chosen.map(|release| release.version)
}

#[test]
fn the_newest_that_is_neither_bad_nor_too_far_ahead_is_chosen() {
    let (running, bad, channel) = (version("1.9.0"), bad("1.12.0"), Channel::default());
    let host = host(&running, &bad, &channel);
    let offered = targets(&["1.8.0", "1.9.0", "1.10.0", "1.11.0", "1.12.0", "2.0.0"]);
    let follows = |of: &Version| Ok(release(of, (*of == version("2.0.0")).then_some("1.11.0")));
    let choice = newest(&host, &offered, |_, _| true, follows).unwrap();
    assert_eq!(choice.chosen.unwrap().version, version("1.11.0"));
    let over: Vec<_> = choice.passed_over.iter().map(|(version, _)| version.to_string()).collect();
    assert_eq!(over, ["2.0.0", "1.12.0"]);
    assert!(choice.passed_over[1].1.contains("kernel panic"));
}

#[test]
fn after_a_fallback_nothing_between_what_runs_and_what_proved_itself_is_taken() {
    let (running, channel) = (version("1.0.0"), Channel::default());
    let fallen = Host { minimum: Some(version("1.2.0")), ..host(&running, &[], &channel) };
    let old = targets(&["1.1.0"]);
    let choice = newest(&fallen, &old, |_, _| true, |of| Ok(release(of, None))).unwrap();
    assert_eq!(choice.chosen, None);
    assert!(choice.passed_over[0].1.contains("older than 1.2.0"), "{choice:?}");
    let refused = named(&fallen, &old, &version("1.1.0"), |of| Ok(release(of, None))).unwrap_err();
    assert_eq!(refused.code, ErrorCode::Rollback);
    // The one that proved itself may come back, whether or not it is the newest.
    for offered in [targets(&["1.1.0", "1.2.0"]), targets(&["1.1.0", "1.2.0", "1.3.0"])] {
        assert!(chosen(&fallen, &offered).is_some_and(|version| version >= "1.2.0".parse().unwrap()));
    }
    assert!(named(&fallen, &targets(&["1.2.0"]), &version("1.2.0"), |of| Ok(release(of, None))).is_ok());
}

#[test]
fn channel_pin_and_withdrawal_decide_what_is_for_a_host() {
    let (running, channel, beta) = (version("1.0.0"), Channel::default(), "beta".parse::<Channel>().unwrap());
    let mut offered = targets(&["1.1.0", "1.2.0", "2.0.0"]);
    let say = |rollout: serde_json::Value| target(Some(serde_json::json!({ "rollout": rollout })));
    offered.insert("keel-cloud-3.0.0.json".into(), say(serde_json::json!({"channels": ["beta"]})));
    assert_eq!(chosen(&host(&running, &[], &channel), &offered), Some(version("2.0.0")));
    assert_eq!(chosen(&host(&running, &[], &beta), &offered), Some(version("3.0.0")));
    let pin = "1.*".parse::<Pin>().unwrap();
    let pinned = Host { pin: Some(&pin), ..host(&running, &[], &channel) };
    assert_eq!(chosen(&pinned, &offered), Some(version("1.2.0")));
    for gone in [serde_json::json!({"withdrawn": "it eats disks"}), serde_json::json!({"channels": "stable"})] {
        offered.insert("keel-cloud-2.0.0.json".into(), say(gone));
        let host = host(&running, &[], &channel);
        assert_eq!(chosen(&host, &offered), Some(version("1.2.0")));
        let named = named(&host, &offered, &version("2.0.0"), |of| Ok(release(of, None)));
        assert_eq!(named.unwrap_err().code, ErrorCode::Conflict);
        assert!(recalled(&host, &offered, &version("2.0.0")).is_some());
        assert!(recalled(&host, &offered, &version("1.2.0")).is_none());
    }
    assert!(recalled(&pinned, &offered, &version("9.0.0")).unwrap().contains("no longer lists it"));
}

#[test]
fn many_releases_that_are_not_for_a_host_do_not_hide_one_that_is() {
    let (running, channel) = (version("1.0.0"), Channel::default());
    let names: Vec<String> = (0..100).map(|patch| format!("2.0.{patch}")).chain(["1.0.1".into()]).collect();
    let offered = targets(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let pin = "1.*".parse::<Pin>().unwrap();
    let pinned = Host { pin: Some(&pin), ..host(&running, &[], &channel) };
    assert_eq!(chosen(&pinned, &offered), Some(version("1.0.1")));
}

#[test]
fn a_version_asked_for_by_name_is_refused_with_its_own_kind_of_failure() {
    let (running, bad, channel) = (version("1.9.0"), bad("1.12.0"), Channel::default());
    let host = host(&running, &bad, &channel);
    let offered = targets(&["1.8.0", "1.9.0", "1.12.0", "2.0.0"]);
    let code = |text: &str, follows| {
        named(&host, &offered, &version(text), |of| Ok(release(of, follows))).map_err(|failure| failure.code)
    };
    assert_eq!(code("1.8.0", None).unwrap_err(), ErrorCode::Rollback);
    assert_eq!(code("1.9.0", None).unwrap_err(), ErrorCode::UpToDate);
    assert_eq!(code("1.12.0", None).unwrap_err(), ErrorCode::KnownBad);
    assert_eq!(code("3.0.0", None).unwrap_err(), ErrorCode::NotFound);
    assert_eq!(code("2.0.0", Some("1.12.0")).unwrap_err(), ErrorCode::Conflict);
    assert!(code("2.0.0", Some("1.9.0")).is_ok());
}
