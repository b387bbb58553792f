//! Which release to install: decided from trusted metadata, without I/O.

use std::collections::BTreeMap;

use keel_spec::api::{BadRelease, ErrorCode};
use keel_spec::release::{Release, ReleaseFile, Version};
use keel_spec::tuf::{TargetFile, Time};

use crate::failure::{Failure, Result};

/// Most releases that are passed over with a reason.
pub const MAX_PASSED_OVER: usize = 16;

/// What is known of this host when a release is chosen.
#[derive(Clone, Debug)]
pub struct Host<'a> {
    /// Running release.
    pub running: &'a Version,
    /// Its profile.
    pub profile: &'a str,
    /// Releases that failed here.
    pub bad: &'a [BadRelease],
}

/// A newer release, or none, and those passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    /// What is to be installed.
    pub chosen: Option<T>,
    /// Newer releases that can't be, and why.
    pub passed_over: Vec<(Version, String)>,
}

/// Versions that a repository has of a profile, the newest first.
pub fn versions(targets: &BTreeMap<String, TargetFile>, profile: &str) -> Vec<Version> {
    let prefix = format!("keel-{profile}-");
    let version = |name: &String| name.strip_prefix(&prefix)?.strip_suffix(".json")?.parse().ok();
    let mut versions: Vec<Version> = targets.keys().filter_map(version).collect();
    versions.sort();
    versions.reverse();
    versions
}

/// Why a release failed here, if it did.
pub fn known_bad<'a>(bad: &'a [BadRelease], version: &Version) -> Option<&'a BadRelease> {
    bad.iter().find(|release| release.version == *version)
}

/// Whether a release may follow the running one directly.
pub fn may_follow(host: &Host, release: &Release) -> std::result::Result<(), String> {
    match &release.follows_at_least {
        Some(least) if host.running < least => {
            Err(format!("it can only follow {least} or newer: install {least} first"))
        }
        _ => Ok(()),
    }
}

/// The newest release that may follow. `describe` fetches and checks a description.
pub fn newest(
    host: &Host,
    targets: &BTreeMap<String, TargetFile>,
    mut describe: impl FnMut(&Version) -> Result<Release>,
) -> Result<Choice<Release>> {
    let mut choice = Choice { chosen: None, passed_over: Vec::new() };
    for version in versions(targets, host.profile).into_iter().take_while(|version| version > host.running) {
        if choice.passed_over.len() == MAX_PASSED_OVER {
            break;
        }
        if let Some(bad) = known_bad(host.bad, &version) {
            let when = Time(bad.at_unix_s).for_people();
            choice.passed_over.push((version, format!("it failed on this machine on {when}: {}", bad.reason)));
            continue;
        }
        let release = describe(&version)?;
        match may_follow(host, &release) {
            Ok(()) => {
                choice.chosen = Some(release);
                break;
            }
            Err(why) => choice.passed_over.push((version, why)),
        }
    }
    Ok(choice)
}

/// A version that was asked for by name, or why not.
pub fn named(
    host: &Host,
    targets: &BTreeMap<String, TargetFile>,
    version: &Version,
    describe: impl FnOnce(&Version) -> Result<Release>,
) -> Result<Release> {
    let running = host.running;
    if version == running {
        return Err(Failure::new(ErrorCode::UpToDate, format!("install {version}: it is running already")));
    }
    if version < running {
        let message = format!(
            "install {version}: it is older than the running {running}; only keelctl update rollback goes back, to the release in the other slot"
        );
        return Err(Failure::new(ErrorCode::Rollback, message));
    }
    if let Some(bad) = known_bad(host.bad, version) {
        let message = format!(
            "install {version}: it failed on this machine on {}: {}; publish a newer release",
            Time(bad.at_unix_s).for_people(),
            bad.reason
        );
        return Err(Failure::new(ErrorCode::KnownBad, message));
    }
    let name = ReleaseFile::Description.target_name(host.profile, version);
    if !targets.contains_key(&name) {
        let message = format!("install {version}: the update repository has no {name}");
        return Err(Failure::new(ErrorCode::NotFound, message));
    }
    let release = describe(version)?;
    may_follow(host, &release).map_err(|why| Failure::new(ErrorCode::Conflict, format!("install {version}: {why}")))?;
    Ok(release)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::verity::RootHash;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn targets(versions: &[&str]) -> BTreeMap<String, TargetFile> {
        let target = TargetFile { length: 1, hashes: BTreeMap::new(), custom: None };
        versions.iter().map(|text| (format!("keel-cloud-{text}.json"), target.clone())).collect()
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

    #[test]
    fn the_newest_that_is_neither_bad_nor_too_far_ahead_is_chosen() {
        let running = version("1.9.0");
        let bad = bad("1.12.0");
        let host = Host { running: &running, profile: "cloud", bad: &bad };
        let offered = targets(&["1.8.0", "1.9.0", "1.10.0", "1.11.0", "1.12.0", "2.0.0"]);
        let follows = |of: &Version| Ok(release(of, (*of == version("2.0.0")).then_some("1.11.0")));
        let choice = newest(&host, &offered, follows).unwrap();
        assert_eq!(choice.chosen.unwrap().version, version("1.11.0"));
        let over: Vec<_> = choice.passed_over.iter().map(|(version, _)| version.to_string()).collect();
        assert_eq!(over, ["2.0.0", "1.12.0"]);
        assert!(choice.passed_over[1].1.contains("kernel panic"));
    }

    #[test]
    fn a_version_asked_for_by_name_is_refused_with_its_own_kind_of_failure() {
        let running = version("1.9.0");
        let bad = bad("1.12.0");
        let host = Host { running: &running, profile: "cloud", bad: &bad };
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
}
