//! Which release to install: decided from trusted metadata, without I/O.

use std::collections::BTreeMap;

use keel_spec::api::{BadRelease, ErrorCode};
use keel_spec::release::{Release, ReleaseFile, Version};
use keel_spec::rollout::{Channel, Pin, Rollout};
use keel_spec::tuf::{TargetFile, Time};

use crate::failure::{Failure, Result};

/// Most releases that are passed over with a reason.
pub const MAX_PASSED_OVER: usize = 16;
/// Most descriptions that are fetched.
const MAX_DESCRIBED: usize = 16;

/// What is known of this host when a release is chosen.
#[derive(Clone, Debug)]
pub struct Host<'a> {
    /// Running release.
    pub running: &'a Version,
    /// Its profile.
    pub profile: &'a str,
    /// Releases that failed here.
    pub bad: &'a [BadRelease],
    /// The newest that ever proved itself here; nothing older is accepted.
    pub minimum: Option<Version>,
    /// The channel that it follows.
    pub channel: &'a Channel,
    /// Versions that it may get, if not any.
    pub pin: Option<&'a Pin>,
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

/// Why a release is too old for this machine, if it is.
fn too_old(host: &Host, version: &Version) -> Option<String> {
    let least = host.minimum.as_ref().filter(|least| version < least)?;
    Some(format!("it is older than {least}, which proved itself on this machine: only that or a newer one is accepted"))
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

/// What a release's publisher says of it; an error says why nobody should have it.
fn rollout(host: &Host, targets: &BTreeMap<String, TargetFile>, version: &Version) -> Result<Rollout, String> {
    let name = ReleaseFile::Description.target_name(host.profile, version);
    let target = targets.get(&name).ok_or("the repository no longer lists it")?;
    let rollout = Rollout::of(target).map_err(|why| format!("who gets it can't be understood: {why}"))?;
    match &rollout.withdrawn {
        Some(why) => Err(format!("it was withdrawn: {why}")),
        None => Ok(rollout),
    }
}

/// Why a release that may be on this host's disk should not be booted any more, if so.
pub fn recalled(host: &Host, targets: &BTreeMap<String, TargetFile>, version: &Version) -> Option<String> {
    rollout(host, targets, version).err()
}

/// The newest release that is wanted and may follow. `describe` fetches and checks a description. Releases of other
/// channels, outside the pin or not wanted aren't passed over: they aren't for this host.
pub fn newest(
    host: &Host,
    targets: &BTreeMap<String, TargetFile>,
    wanted: impl Fn(&Version, &Rollout) -> bool,
    mut describe: impl FnMut(&Version) -> Result<Release>,
) -> Result<Choice<Release>> {
    let mut choice = Choice { chosen: None, passed_over: Vec::new() };
    let mut described = 0;
    let newer = versions(targets, host.profile).into_iter().take_while(|version| version > host.running);
    for version in newer.filter(|version| host.pin.is_none_or(|pin| pin.allows(version))) {
        let refusal = match rollout(host, targets, &version) {
            Ok(rollout) if !rollout.channels.contains(host.channel) || !wanted(&version, &rollout) => continue,
            Ok(_) => too_old(host, &version).or_else(|| {
                let bad = known_bad(host.bad, &version)?;
                let when = Time(bad.at_unix_s).for_people();
                Some(format!("it failed on this machine on {when}: {}", bad.reason))
            }),
            Err(why) => Some(why),
        };
        let refusal = match refusal {
            Some(why) => why,
            None if described == MAX_DESCRIBED => break,
            None => {
                described += 1;
                let release = describe(&version)?;
                match may_follow(host, &release) {
                    Ok(()) => {
                        choice.chosen = Some(release);
                        break;
                    }
                    Err(why) => why,
                }
            }
        };
        if choice.passed_over.len() < MAX_PASSED_OVER {
            choice.passed_over.push((version, refusal));
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
    if let Some(why) = too_old(host, version) {
        return Err(Failure::new(ErrorCode::Rollback, format!("install {version}: {why}")));
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
    rollout(host, targets, version)
        .map_err(|why| Failure::new(ErrorCode::Conflict, format!("install {version}: {why}")))?;
    let release = describe(version)?;
    may_follow(host, &release).map_err(|why| Failure::new(ErrorCode::Conflict, format!("install {version}: {why}")))?;
    Ok(release)
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
