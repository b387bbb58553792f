//! What the policy remembers over a loss of power, in one small file.
//!
//! Older releases read it after a fallback, so fields are only ever added, and kept where they aren't known. A file
//! that can't be read is moved aside; then this host may hold a lock without knowing, so it is given back.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use keel_durable::{self as durable, Stored};
use keel_spec::config::FleetLock;
use keel_spec::release::Version;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::{Deserialize, Serialize};

use super::report::Outcome;
use crate::failure::{Failure, Result};

/// Largest file.
const MAX_BYTES: u64 = 64 << 10;
/// Hexadecimal digits of a host's ID.
const ID_DIGITS: usize = 32;
/// Most outcomes that wait to be told; the oldest are forgotten.
pub const MAX_OUTCOMES: usize = 16;
/// Most bad releases that are remembered as told.
pub const MAX_TOLD: usize = 64;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// Since when an operator wants nothing done, seconds since the Unix epoch.
    pub paused_unix_s: Option<u64>,
    /// Leave to restart.
    pub lock: Lock,
    /// A release that was written whole, but isn't offered.
    pub staged: Option<Version>,
    /// A release that the policy itself offered, or was about to; what an operator installed isn't.
    pub offered: Option<Version>,
    /// A restart that was asked for.
    pub restart: Option<Restart>,
    /// A release that restarts didn't lead to, and how many.
    pub missed: Option<Missed>,
    /// The release that was last known to be good here.
    pub good: Option<Version>,
    /// Bad releases of which an outcome was made, with the second at which they were seen.
    pub told_bad: Vec<(Version, u64)>,
    /// Outcomes that nobody was told of yet.
    pub outcomes: VecDeque<Outcome>,
    /// Fields of newer releases.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// Leave to restart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lock {
    /// This host holds none.
    #[default]
    Free,
    /// It asked; what came of it isn't known.
    Asked(FleetLock),
    /// It holds one.
    Held {
        /// Whose.
        of: FleetLock,
        /// Since when, seconds since the Unix epoch.
        since_unix_s: u64,
    },
}

impl Lock {
    /// Where it has to be given back.
    pub fn place(&self) -> Option<&FleetLock> {
        match self {
            Self::Free => None,
            Self::Asked(of) | Self::Held { of, .. } => Some(of),
        }
    }

    /// Whether this one is held.
    pub fn is_held(&self, wanted: &FleetLock) -> bool {
        matches!(self, Self::Held { of, .. } if of == wanted)
    }
}

/// A restart that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The release that is to come up.
    pub version: Version,
    /// The boot that is to end (the kernel's random boot ID).
    pub boot_id: String,
    /// When it was asked for, seconds since the Unix epoch.
    pub at_unix_s: u64,
}

/// A release that restarts didn't lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Its version.
    pub version: Version,
    /// How many.
    pub restarts: u32,
}

impl Record {
    /// Remembers an outcome until somebody was told.
    pub fn add_outcome(&mut self, outcome: Outcome) {
        self.outcomes.push_back(outcome);
        while self.outcomes.len() > MAX_OUTCOMES {
            self.outcomes.pop_front();
        }
    }
}

/// Where the record and the host's ID are kept.
#[derive(Debug)]
pub struct File {
    record: PathBuf,
    id: PathBuf,
}

impl File {
    /// `rollout.json` and `host-id` in a folder.
    pub fn new(folder: &Path) -> Self {
        Self { record: folder.join("rollout.json"), id: folder.join("host-id") }
    }

    /// Reads the record. If it is there but can't be read, a lock of `lock` may be held.
    pub fn read(&self, lock: Option<&FleetLock>) -> Record {
        let stored = durable::read_json(&self.record, MAX_BYTES).unwrap_or_else(|error| {
            log::warn!("{} can't be read: {error}", self.record.display());
            Stored::Damaged
        });
        match stored {
            Stored::Value(record) => record,
            Stored::Absent => Record::default(),
            Stored::Damaged => Record { lock: lock.cloned().map_or(Lock::Free, Lock::Asked), ..Record::default() },
        }
    }

    /// Writes it durably.
    pub fn write(&self, record: &Record) -> Result<()> {
        durable::write_json(&self.record, record).map_err(Failure::io(format!("write {}", self.record.display())))
    }

    /// What this host is called among others: random, made once, kept as long as the state partition.
    pub fn host_id(&self) -> Result<String> {
        let failed = |doing: &str| format!("{doing} this host's ID in {}", self.id.display());
        let kept = durable::read(&self.id, ID_DIGITS as u64).unwrap_or_else(|error| {
            log::warn!("{}: {error}", failed("read"));
            None
        });
        let kept = kept.and_then(|bytes| String::from_utf8(bytes).ok());
        let is_id = |text: &String| text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(id) = kept.filter(is_id) {
            return Ok(id);
        }
        let mut bytes = [0; ID_DIGITS / 2];
        let random = SystemRandom::new().fill(&mut bytes);
        random.map_err(Failure::io(failed("make")))?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        durable::write(&self.id, id.as_bytes()).map_err(Failure::io(failed("write")))?;
        Ok(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("keel-rollout-record-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    #[test]
    fn a_record_that_was_torn_leaves_a_lock_to_be_given_back() {
        let folder = folder("torn");
        let (file, lock) = (File::new(&folder), FleetLock { url: "http://l".into(), group: "g".into() });
        assert_eq!(file.read(Some(&lock)).lock, Lock::Free, "a host that never asked holds none");
        let held = Lock::Held { of: lock.clone(), since_unix_s: 7 };
        file.write(&Record { lock: held.clone(), ..Record::default() }).unwrap();
        assert_eq!(file.read(None).lock, held);
        std::fs::write(&file.record, b"{\"lock\":{\"he").unwrap();
        assert_eq!(file.read(Some(&lock)).lock, Lock::Asked(lock));
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn fields_of_newer_releases_survive() {
        let folder = folder("newer");
        let file = File::new(&folder);
        std::fs::write(&file.record, br#"{"paused_unix_s":3,"from_the_future":[1]}"#).unwrap();
        let record = file.read(None);
        file.write(&record).unwrap();
        let text = std::fs::read_to_string(&file.record).unwrap();
        assert!(record.paused_unix_s == Some(3) && text.contains("from_the_future"), "{text}");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_host_keeps_its_id_and_two_hosts_have_two() {
        let (one, other) = (folder("id-1"), folder("id-2"));
        let id = File::new(&one).host_id().unwrap();
        assert_eq!(File::new(&one).host_id().unwrap(), id);
        assert_ne!(File::new(&other).host_id().unwrap(), id);
        std::fs::write(one.join("host-id"), "short").unwrap();
        assert_ne!(File::new(&one).host_id().unwrap(), id);
        for folder in [one, other] {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }
}
