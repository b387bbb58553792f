//! Boots of a machine: `GET /keel/v1/boots`, newest first, and `GET /keel/v1/boots/{number}/log`.
//!
//! The updater keeps them on the state partition in the same form, so fields are only ever added, each with a default:
//! the release before reads them too.

use serde::{Deserialize, Serialize};

use crate::release::Version;

/// One boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Counted on this machine, from 1.
    pub number: u64,
    /// Kernel's random boot ID; empty for one that ended before anything could be recorded.
    #[serde(default)]
    pub boot_id: String,
    /// When it began, seconds since the Unix epoch.
    #[serde(default)]
    pub started_unix_s: u64,
    /// Whether the clock was known to be right; if it wasn't, `started_unix_s` is a lower bound.
    #[serde(default)]
    pub clock_known: bool,
    /// The release that ran.
    pub version: Version,
    /// The slot that it ran from, `a` or `b`; empty: not known.
    #[serde(default)]
    pub slot: String,
    /// Its trial, if it was on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<BootTrial>,
    /// Milliseconds that it ran; where it ended without warning, the last that was recorded.
    #[serde(default)]
    pub ran_ms: u64,
    /// How it ended; `None`: it is the one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<BootEnd>,
}

/// A boot of a release on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTrial {
    /// Which try this was, from 1.
    #[serde(default)]
    pub attempt: u32,
    /// How many there are; 0: not known.
    #[serde(default)]
    pub tries: u32,
    /// What came of it.
    #[serde(default)]
    pub outcome: TrialOutcome,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrialOutcome {
    /// It proved itself.
    Passed,
    /// It did not.
    Failed,
    /// Neither, so far or to the end of the boot.
    #[default]
    #[serde(other)]
    Undecided,
}

/// How a boot ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEnd {
    /// In a word.
    pub cause: EndCause,
    /// The service that asked for it; empty where nobody did.
    #[serde(default)]
    pub by: String,
    /// In words.
    #[serde(default)]
    pub reason: String,
}

/// Why a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EndCause {
    /// A restart was asked for.
    Reboot,
    /// Power-off was asked for.
    Poweroff,
    /// A restart into another release.
    Update,
    /// A restart into the release before, asked for.
    Rollback,
    /// The release on trial was not good in time.
    TrialFailed,
    /// The kernel panicked.
    Panic,
    /// The hardware watchdog reset the machine.
    Watchdog,
    /// Nothing was left behind: power cut, reset, or a cause that only a newer release has a word for.
    #[serde(other)]
    Unknown,
}

impl EndCause {
    /// All of them, for tables.
    pub const ALL: [Self; 8] = [
        Self::Reboot,
        Self::Poweroff,
        Self::Update,
        Self::Rollback,
        Self::TrialFailed,
        Self::Panic,
        Self::Watchdog,
        Self::Unknown,
    ];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Poweroff => "poweroff",
            Self::Update => "update",
            Self::Rollback => "rollback",
            Self::TrialFailed => "trial-failed",
            Self::Panic => "panic",
            Self::Watchdog => "watchdog",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_wire_and_unknown_ones_are_unknown() {
        for cause in EndCause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.word());
            assert_eq!(serde_json::from_value::<EndCause>(cause.word().into()).unwrap(), cause);
        }
        assert_eq!(serde_json::from_str::<EndCause>("\"meteorite\"").unwrap(), EndCause::Unknown);
        assert_eq!(serde_json::from_str::<TrialOutcome>("\"odd\"").unwrap(), TrialOutcome::Undecided);
    }
}
