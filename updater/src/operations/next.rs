//! What boots next: the other release, the same one without the firmware, or the running one for good.

use std::sync::atomic::Ordering;

use keel_spec::api::ErrorCode;
use keel_spec::release::{ReleaseFile, UkiName, Version};

use super::{Updater, settings, trusted_root};
use crate::esp::Esp;
use crate::failure::{Failure, Result};
use crate::plan::Target;
use crate::{disk, kexec, rollback, tuf};

impl Updater {
    /// Makes the other release the one that boots next.
    pub fn rollback(&self) -> Result<Version> {
        let tries = settings()?.update.tries;
        let (table, _) = disk::read_table(&self.host.open_disk()?)?;
        self.with_esp(|esp| {
            let ukis = esp.ukis().map_err(Failure::io("look at the UKIs on the EFI system partition"))?;
            let installed = rollback::Installed {
                running: &self.host.running,
                running_root: &self.host.root_hash,
                table: &table,
                ukis: &ukis,
            };
            let plan = rollback::decide(&installed, &self.state.read(), self.on_trial.load(Ordering::Relaxed), tries)?;
            // Remembered first: a power cut in between must not make the release look as if it had failed.
            if let Some(version) = &plan.demote {
                self.state.change(|state| state.demote(version))?;
            }
            if let Some((from, to)) = &plan.rename {
                rename(esp, from, to)?;
            }
            if plan.demote.is_none() {
                self.state.change(|state| state.demoted.retain(|version| *version != plan.next_boot))?;
            }
            Ok(plan.next_boot)
        })
    }

    /// Loads what boots next for a start without the firmware, and counts the try as the boot loader would.
    pub fn load_next(&self) -> Result<Version> {
        let trusted = tuf::Client::kept(&self.store, &trusted_root()?).map_err(|error| {
            let why = format!("skip the firmware: no kept metadata tells what was published: {error}");
            Failure::new(ErrorCode::Conflict, format!("{why}; `keelctl update check` fetches it"))
        })?;
        let (table, _) = disk::read_table(&self.host.open_disk()?)?;
        self.with_esp(|esp| {
            let ukis = esp.ukis().map_err(Failure::io("look at the UKIs on the EFI system partition"))?;
            let next = kexec::decide(&rollback::Installed {
                running: &self.host.running,
                running_root: &self.host.root_hash,
                table: &table,
                ukis: &ukis,
            })?;
            let name = ReleaseFile::Uki.target_name(&self.host.profile, &next.version);
            let target = Target::of(trusted.targets().unwrap_or(&Default::default()), name)?;
            kexec::load(esp, &next, &target)?;
            // Last, so that a refusal costs no try.
            if next.from != next.to {
                rename(esp, &next.from, &next.to)?;
            }
            Ok(next.version)
        })
    }

    /// The running release proved itself: its UKI loses its counter.
    pub fn commit(&self) -> Result<()> {
        self.with_esp(|esp| {
            let ukis = esp.ukis().map_err(Failure::io("look at the UKIs on the EFI system partition"))?;
            let running = ukis.iter().filter(|uki| uki.root_hash == Some(self.host.root_hash));
            for uki in running.filter(|uki| uki.name.tries_left.is_some()) {
                rename(esp, &uki.name, &UkiName::good(uki.name.version.clone()))?;
            }
            Ok(())
        })?;
        self.on_trial.store(false, Ordering::Relaxed);
        self.state.change(|state| {
            state.pending = None;
            state.note = None;
        })?;
        self.proved()
    }

    /// Takes note of the running release, unless it is on trial: nothing older is accepted.
    pub fn proved(&self) -> Result<()> {
        if self.on_trial.load(Ordering::Relaxed) {
            self.minimum.version(&self.state);
            return Ok(());
        }
        self.minimum.raise(&self.state, self.running())
    }
}

fn rename(esp: &mut Esp, from: &UkiName, to: &UkiName) -> Result<()> {
    esp.rename(&from.to_string(), &to.to_string())
        .map_err(Failure::io(format!("rename {from} to {to} on the EFI system partition")))
}
