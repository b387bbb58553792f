//! Who gets a release and when, as its publisher signs it: channels, waves, withdrawal.
//!
//! It stands beside the release's description in the targets metadata (`custom`, section 4.5 of The Update Framework),
//! so that it can be changed without building anything again, and nobody but the publisher can change it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::release::Version;
use crate::tuf::{TargetFile, Time};

/// Key in the `custom` of a target.
const KEY: &str = "rollout";
/// Longest name of a channel, and longest seed.
const MAX_NAME_BYTES: usize = 64;
/// Most channels of a release.
pub const MAX_CHANNELS: usize = 16;
/// Most steps of a schedule.
pub const MAX_STEPS: usize = 64;
/// Latest step: a year after the start.
pub const MAX_AFTER_MIN: u32 = 366 * 24 * 60;
/// All hosts, in parts of ten thousand.
pub const ALL: u32 = 10_000;

/// A line of releases: `stable`, `beta`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Channel(String);

/// Why text isn't the name of a channel.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a channel: want at most 64 lower-case letters, digits and hyphens")]
pub struct InvalidChannel(pub String);

impl Default for Channel {
    fn default() -> Self {
        Self("stable".into())
    }
}

impl FromStr for Channel {
    type Err = InvalidChannel;

    fn from_str(text: &str) -> Result<Self, InvalidChannel> {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        match text.is_empty() || text.len() > MAX_NAME_BYTES || !text.bytes().all(fits) {
            true => Err(InvalidChannel(text.chars().take(MAX_NAME_BYTES).collect())),
            false => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for Channel {
    type Error = InvalidChannel;

    fn try_from(text: String) -> Result<Self, InvalidChannel> {
        text.parse()
    }
}

impl From<Channel> for String {
    fn from(channel: Channel) -> String {
        channel.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which versions a host may get: exactly one, or those that a requirement lets through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Pin {
    /// This one alone.
    Exact(Version),
    /// `>=1.4, <2`, `~1.4`, `1.4.*` (Cargo's syntax).
    Range(semver::VersionReq),
}

/// Why text isn't a pin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a version or a requirement such as \"1.4.2\", \"1.4.*\", \"~1.4\" or \">=1.4, <2\"{0}")]
pub struct InvalidPin(&'static str);

impl Pin {
    /// Whether a version may be installed.
    pub fn allows(&self, version: &Version) -> bool {
        match self {
            Self::Exact(only) => only == version,
            Self::Range(range) => version.matches(range),
        }
    }
}

impl FromStr for Pin {
    type Err = InvalidPin;

    fn from_str(text: &str) -> Result<Self, InvalidPin> {
        if let Ok(version) = text.parse() {
            return Ok(Self::Exact(version));
        }
        if text.len() > 128 {
            return Err(InvalidPin(": it is longer than 128 bytes"));
        }
        // Cargo takes a bare "1.4" for "^1.4", which allows 1.9: not what anybody who pins means.
        let bare = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if text.split(',').any(|part| bare(part.trim())) {
            return Err(InvalidPin(": write 1.4.* for all of 1.4, or ^1.4 for everything up to 2"));
        }
        text.parse().map(Self::Range).map_err(|_| InvalidPin(""))
    }
}

impl TryFrom<String> for Pin {
    type Error = InvalidPin;

    fn try_from(text: String) -> Result<Self, InvalidPin> {
        text.parse()
    }
}

impl From<Pin> for String {
    fn from(pin: Pin) -> String {
        pin.to_string()
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(version) => version.fmt(f),
            Self::Range(range) => range.fmt(f),
        }
    }
}

/// What the publisher says of a release beside what it consists of. Unknown fields are those of later versions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Channels that it is in.
    #[serde(default = "default_channels")]
    pub channels: Vec<Channel>,
    /// When which part of the hosts gets it; `None`: all of them at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Waves>,
    /// Why no host should have it any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<String>,
}

fn default_channels() -> Vec<Channel> {
    vec![Channel::default()]
}

impl Default for Rollout {
    fn default() -> Self {
        Self { channels: default_channels(), waves: None, withdrawn: None }
    }
}

/// When which part of the hosts gets a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waves {
    /// When it begins.
    pub start: Time,
    /// Which hosts come first: another seed, another order.
    pub seed: String,
    /// Steps, later ones with more hosts.
    pub steps: Vec<Step>,
}

/// From when on so many hosts get a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Minutes after the start.
    pub after_min: u32,
    /// Hosts that get it from then on, those of the steps before included, in parts of ten thousand (0.01 %).
    pub parts: u32,
}

impl Rollout {
    /// Of a release, from the target that is its description. Nothing said: `stable`, all hosts at once. What can't be
    /// understood is an error, so that a host never gets what it perhaps shouldn't have.
    pub fn of(target: &TargetFile) -> Result<Self, String> {
        let Some(value) = target.custom.as_ref().and_then(|custom| custom.get(KEY)) else {
            return Ok(Self::default());
        };
        let rollout = Self::deserialize(value).map_err(|error| error.to_string())?;
        rollout.check().map(|()| rollout)
    }

    /// Puts it beside a target, in the place of what was said before; other things said there stay.
    pub fn put(&self, target: &mut TargetFile) -> Result<(), String> {
        self.check()?;
        let value = serde_json::to_value(self).map_err(|error| error.to_string())?;
        let custom = target.custom.get_or_insert_with(|| serde_json::json!({}));
        let Some(custom) = custom.as_object_mut() else {
            return Err("what is said of the target already is no JSON object".into());
        };
        custom.insert(KEY.into(), value);
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.channels.len() > MAX_CHANNELS {
            return Err(format!("a release is in at most {MAX_CHANNELS} channels"));
        }
        self.waves.as_ref().map_or(Ok(()), Waves::check)
    }
}

impl Waves {
    fn check(&self) -> Result<(), String> {
        if self.steps.is_empty() || self.steps.len() > MAX_STEPS {
            return Err(format!("a schedule has 1 to {MAX_STEPS} steps"));
        }
        if self.seed.len() > MAX_NAME_BYTES {
            return Err(format!("a seed has at most {MAX_NAME_BYTES} bytes"));
        }
        if self.steps.iter().any(|step| step.parts > ALL || step.after_min > MAX_AFTER_MIN) {
            return Err("a step is at most a year after the start, and has at most 100 % of the hosts".into());
        }
        let later = |pair: &[Step]| matches!(pair, [a, b] if a.after_min < b.after_min && a.parts < b.parts);
        match self.steps.windows(2).all(later) {
            true => Ok(()),
            false => Err("each step is later than the one before it and has more hosts".into()),
        }
    }

    /// When the host at a place between 0 and [`ALL`] (exclusive) gets the release, seconds since the Unix epoch;
    /// `None`: not by this schedule.
    pub fn time_of(&self, place: u32) -> Option<u64> {
        let step = self.steps.iter().find(|step| place < step.parts)?;
        Some(self.start.0.saturating_add(u64::from(step.after_min) * 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn target(custom: Option<serde_json::Value>) -> TargetFile {
        TargetFile { length: 1, hashes: BTreeMap::new(), custom }
    }

    #[test]
    fn nothing_said_is_stable_for_all_at_once() {
        for custom in [None, Some(serde_json::json!({"other": 1}))] {
            assert_eq!(Rollout::of(&target(custom)).unwrap(), Rollout::default());
        }
    }

    #[test]
    fn what_is_put_is_read_and_what_others_said_stays() {
        let steps = vec![Step { after_min: 0, parts: 100 }, Step { after_min: 60, parts: ALL }];
        let rollout = Rollout {
            channels: vec!["beta".parse().unwrap()],
            waves: Some(Waves { start: Time(1_800_000_000), seed: "x".into(), steps }),
            withdrawn: Some("it eats disks".into()),
        };
        let mut target = target(Some(serde_json::json!({"note": "kept", "rollout": {"channels": 3}})));
        rollout.put(&mut target).unwrap();
        assert_eq!(Rollout::of(&target).unwrap(), rollout);
        assert_eq!(target.custom.as_ref().unwrap()["note"], "kept");
        // Signed metadata holds no numbers but whole ones.
        assert!(crate::tuf::canonical(target.custom.as_ref().unwrap()).is_ok());
    }

    #[test]
    fn a_schedule_that_makes_no_sense_is_refused_rather_than_ignored() {
        let waves = |steps: serde_json::Value| {
            let waves = serde_json::json!({"start": "2027-01-01T00:00:00Z", "seed": "", "steps": steps});
            Rollout::of(&target(Some(serde_json::json!({"rollout": {"waves": waves}}))))
        };
        assert!(waves(serde_json::json!([{"after_min": 0, "parts": 1}])).is_ok());
        for bad in [
            serde_json::json!([]),
            serde_json::json!([{"after_min": 0, "parts": 10_001}]),
            serde_json::json!([{"after_min": 600_000, "parts": 1}]),
            serde_json::json!([{"after_min": 5, "parts": 1}, {"after_min": 5, "parts": 2}]),
            serde_json::json!([{"after_min": 5, "parts": 2}, {"after_min": 6, "parts": 1}]),
            serde_json::json!([{"after_min": -1, "parts": 1}]),
            serde_json::json!("all"),
        ] {
            assert!(waves(bad.clone()).is_err(), "{bad}");
        }
    }

    #[test]
    fn each_place_has_the_time_of_the_first_step_that_takes_it_in() {
        let steps = vec![Step { after_min: 0, parts: 100 }, Step { after_min: 60, parts: 5000 }];
        let waves = Waves { start: Time(1000), seed: String::new(), steps };
        assert_eq!([0, 99, 100, 4999].map(|place| waves.time_of(place)), [1000, 1000, 4600, 4600].map(Some));
        assert_eq!(waves.time_of(5000), None);
    }

    #[test]
    fn pins_mean_what_they_say() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        let allows = |pin: &str, text: &str| pin.parse::<Pin>().unwrap().allows(&version(text));
        assert!(allows("1.4.2", "1.4.2") && !allows("1.4.2", "1.4.3"));
        assert!(allows("1.4.*", "1.4.9") && !allows("1.4.*", "1.5.0"));
        assert!(allows(">=1.4, <2", "1.9.0") && !allows(">=1.4, <2", "2.0.0"));
        for bad in ["1.4", "1", "", "latest", ">=x", ">=1, 2", &"9".repeat(200)] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
        assert_eq!(">=1.4, <2".parse::<Pin>().unwrap().to_string().parse::<Pin>(), ">=1.4, <2".parse());
    }

    #[test]
    fn channels_are_plain_names() {
        assert!("stable".parse::<Channel>().is_ok() && "lts-2".parse::<Channel>().is_ok());
        for bad in ["", "Stable", "a b", "a/b", &"x".repeat(65)] {
            assert!(bad.parse::<Channel>().is_err(), "{bad}");
        }
    }
}
