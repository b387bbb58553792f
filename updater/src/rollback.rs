//! Which release boots next, and how to change that.
//!
//! systemd-boot 252 offers entries that ran out of tries last, and sorts the others by version, the newest first. So
//! going back to the older release means taking the running one's tries away: `keel_2.0.0.efi` becomes
//! `keel_2.0.0+0-1.efi`. Installing that version again gives them back; nothing is fetched for it.

use keel_spec::api::{ErrorCode, OtherRelease};
use keel_spec::disk::Slot;
use keel_spec::gpt::Table;
use keel_spec::release::{UkiName, Version};
use keel_spec::verity::RootHash;

use crate::esp::Uki;
use crate::failure::{Failure, Result};
use crate::state::State;

/// What is on the disk.
pub struct Installed<'a> {
    /// Running release.
    pub running: &'a Version,
    /// Its root hash.
    pub running_root: &'a RootHash,
    /// Partition table.
    pub table: &'a Table,
    /// UKIs.
    pub ukis: &'a [Uki],
}

impl Installed<'_> {
    /// The slot that the running release is in.
    pub fn slot(&self) -> Option<Slot> {
        Slot::holding(self.table, self.running_root)
    }

    /// The UKI of the release in the other slot, if that slot holds its root.
    pub fn other(&self) -> Option<&Uki> {
        let other = self.slot()?.other();
        self.ukis.iter().find(|uki| uki.root_hash.is_some_and(|hash| Slot::holding(self.table, &hash) == Some(other)))
    }

    /// The UKI of the running release.
    pub fn running_uki(&self) -> Option<&Uki> {
        self.ukis.iter().find(|uki| uki.root_hash.as_ref() == Some(self.running_root))
    }

    /// How the other release is, in words.
    pub fn other_release(&self, state: &State) -> Option<OtherRelease> {
        let uki = self.other()?;
        let version = uki.name.version.clone();
        let text = match uki.name.tries_left {
            None if !state.is_bad(&version) => "good",
            Some(0) if state.demoted.contains(&version) => "demoted",
            Some(left) if left > 0 => "untried",
            _ => "failed",
        };
        Some(OtherRelease { version, state: text.into() })
    }

    /// What boots next: of what is offered the newest, and only then what ran out of tries.
    pub fn next_boot(&self) -> Version {
        let bootable = self.running_uki().into_iter().chain(self.other());
        let best = bootable.max_by_key(|uki| (uki.name.is_offered(), &uki.name.version));
        best.map_or_else(|| self.running.clone(), |uki| uki.name.version.clone())
    }
}

/// What a rollback does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What boots next then.
    pub next_boot: Version,
    /// A UKI to rename, from and to; none if it boots next already.
    pub rename: Option<(UkiName, UkiName)>,
    /// The release that is no longer offered.
    pub demote: Option<Version>,
}

/// Decides a rollback.
pub fn decide(installed: &Installed, state: &State, on_trial: bool, tries: u32) -> Result<Plan> {
    let conflict = |why: String| Err(Failure::new(ErrorCode::Conflict, format!("roll back: {why}")));
    let running = installed.running;
    if on_trial {
        return conflict(format!(
            "{running} is on trial: it is left by itself if it fails, or wait until it has passed"
        ));
    }
    let Some(other) = installed.other() else {
        return Err(Failure::new(ErrorCode::NotFound, "roll back: the other slot holds no release".to_owned()));
    };
    let version = other.name.version.clone();
    if let Some(bad) = state.bad.iter().find(|bad| bad.version == version) {
        let message = format!("roll back: {version} in the other slot failed on this machine: {}", bad.reason);
        return Err(Failure::new(ErrorCode::KnownBad, message));
    }
    if !other.name.is_offered() && !state.demoted.contains(&version) {
        return conflict(format!("{version} in the other slot has no tries left"));
    }
    if installed.next_boot() == version {
        return Ok(Plan { next_boot: version, rename: None, demote: None });
    }
    // Back to what was rolled back from: it gets its tries again, and is the newer one.
    if !other.name.is_offered() && version > *running {
        let to = UkiName::on_trial(version.clone(), tries);
        return Ok(Plan { next_boot: version, rename: Some((other.name.clone(), to)), demote: None });
    }
    let Some(uki) = installed.running_uki() else {
        return conflict(format!("the EFI system partition has no UKI of the running {running}"));
    };
    let to = UkiName { version: running.clone(), tries_left: Some(0), tries_done: 1 };
    Ok(Plan { next_boot: version, rename: Some((uki.name.clone(), to)), demote: Some(running.clone()) })
}
