//! What the updater remembers from boot to boot, in one small file.
//!
//! Older releases read it after a fallback, so fields are only ever added; those that this release doesn't know are
//! kept as they are. A torn file is moved aside: what is lost is remembered anew from the EFI system partition.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use keel_durable::{self as durable, Stored};
use keel_spec::api::BadRelease;
use keel_spec::release::Version;
use keel_spec::verity::RootHash;
use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Result};
use crate::minimum::Kept;

/// Largest state file.
const MAX_BYTES: u64 = 256 << 10;
/// Most releases remembered as bad; the oldest are forgotten.
const MAX_BAD: usize = 32;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// A release that was installed and hasn't proved itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// Why a try of the pending release failed, the most telling reason so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
    /// Releases that failed here, the latest first.
    #[serde(default)]
    pub bad: Vec<BadRelease>,
    /// Releases that an operator rolled back from: not bad, but no longer offered by the boot loader.
    #[serde(default)]
    pub demoted: Vec<Version>,
    /// A release that is being written to the other slot; if there is one at the beginning of an install, something
    /// stopped it, and what it left can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writing: Option<Writing>,
    /// The least version that is accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Kept>,
    /// Fields of newer releases.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

/// An installed release that hasn't proved itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Its version.
    pub version: Version,
    /// The release that installed it.
    pub from: Version,
    /// When it was installed, seconds since the Unix epoch.
    pub at_unix_s: u64,
    /// Whether the host was connected then: so it has to be again.
    #[serde(default)]
    pub connected: bool,
}

/// A release that is being written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writing {
    /// Its version.
    pub version: Version,
    /// Its root hash.
    pub root_hash: RootHash,
}

/// Why a try failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// The release that was tried.
    pub version: Version,
    /// What happened.
    pub reason: String,
    /// How telling it is; see [`crate::fallback::Reason::rank`].
    pub rank: u8,
}

impl State {
    /// Takes note of a reason, unless a more telling one is known.
    pub fn take_note(&mut self, note: Note) {
        let known = self.note.as_ref().filter(|known| known.version == note.version);
        if known.is_none_or(|known| known.rank <= note.rank) {
            self.note = Some(note);
        }
    }

    /// Remembers a release as bad.
    pub fn add_bad(&mut self, bad: BadRelease) {
        self.bad.retain(|known| known.version != bad.version);
        self.bad.insert(0, bad);
        self.bad.truncate(MAX_BAD);
    }

    /// Whether a release failed here.
    pub fn is_bad(&self, version: &Version) -> bool {
        self.bad.iter().any(|bad| bad.version == *version)
    }

    /// Remembers that an operator rolled back from a release.
    pub fn demote(&mut self, version: &Version) {
        self.demoted.retain(|known| known != version);
        self.demoted.insert(0, version.clone());
        self.demoted.truncate(MAX_BAD);
    }
}

/// Where the state is kept.
#[derive(Debug)]
pub struct File {
    path: PathBuf,
    /// Held from reading to writing, so that threads lose none of each other's changes.
    changing: Mutex<()>,
}

impl File {
    /// `state.json` in a folder.
    pub fn new(folder: &Path) -> Self {
        Self { path: folder.join("state.json"), changing: Mutex::default() }
    }

    /// Reads it; what can't be read is moved aside.
    pub fn read(&self) -> State {
        let stored = durable::read_json(&self.path, MAX_BYTES).unwrap_or_else(|error| {
            log::warn!("{} can't be read: {error}", self.path.display());
            Stored::Damaged
        });
        stored.value().unwrap_or_default()
    }

    /// Writes it durably.
    pub fn write(&self, state: &State) -> Result<()> {
        durable::write_json(&self.path, state).map_err(Failure::io(format!("write {}", self.path.display())))
    }

    /// Changes it durably.
    pub fn change(&self, change: impl FnOnce(&mut State)) -> Result<State> {
        let _held = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = self.read();
        change(&mut state);
        self.write(&state)?;
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> File {
        let folder = std::env::temp_dir().join(format!("keel-updater-state-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        File::new(&folder)
    }

    #[test]
    fn fields_of_newer_releases_survive_and_torn_files_do_not_stop_the_updater() {
        let file = file("torn");
        std::fs::write(&file.path, br#"{"bad":[],"from_the_future":{"a":1}}"#).unwrap();
        file.change(|state| state.demote(&"1.0.0".parse().unwrap())).unwrap();
        assert_eq!(file.read().rest["from_the_future"]["a"], 1);
        std::fs::write(&file.path, br#"{"bad":["#).unwrap();
        assert_eq!(file.read(), State::default());
        assert!(file.path.with_extension("json.unreadable").exists());
    }

    #[test]
    fn the_more_telling_reason_stays() {
        let note = |reason: &str, rank| Note { version: "1.0.0".parse().unwrap(), reason: reason.into(), rank };
        let mut state = State::default();
        state.take_note(note("panic", 2));
        state.take_note(note("unknown", 0));
        assert_eq!(state.note.unwrap().reason, "panic");
    }
}
