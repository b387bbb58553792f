//! What a host that updates by itself does beside what operators ask for: looks what it may have, writes it ahead,
//! takes it back.

use keel_spec::release::{Release, ReleaseFile, UkiName, Version};
use keel_spec::rollout::Rollout;
use keel_spec::tuf::TargetFile;

use super::{Put, Updater, settings};
use crate::choose;
use crate::failure::{Failure, Result};
use crate::host;
use crate::install::Progress;
use crate::rollout::look::{Candidate, Look};
use crate::rollout::wave;
use crate::state::Writing;

impl Updater {
    /// What the repository has for a host of this ID, and whether what is written or offered is still for it.
    pub fn look(&self, host_id: &str) -> Result<Look> {
        // A host without one is looked after by its operator alone, who installs bundles.
        if settings()?.update.url.is_none() {
            return Ok(Look::default());
        }
        let (settings, source) = self.repository()?;
        let trusted = self.refresh(&source)?;
        let state = self.state.read();
        let known = self.known(&state, &settings);
        let targets = trusted.targets().cloned().unwrap_or_default();
        let now = host::now_unix_s();
        let wave = |rollout: &Rollout| rollout.waves.as_ref().map_or(Some(0), |waves| wave::time(waves, host_id));
        // What an operator rolled back from isn't for a machine to install again.
        let wanted = |version: &Version| !state.demoted.contains(version);
        let is_due = |rollout: &Rollout| wave(rollout).is_some_and(|at| at <= now);
        let describe = |version: &Version| self.describe(&source, &trusted, version);
        // An older one whose wave has come goes before a newer one whose wave hasn't: where releases come quicker than
        // their waves, a host would never get any.
        let due = choose::newest(&known, &targets, |version, rollout| wanted(version) && is_due(rollout), describe)?;
        let chosen = match due.chosen {
            Some(release) => Some(release),
            None => choose::newest(&known, &targets, |version, _| wanted(version), describe)?.chosen,
        };
        let candidate = |release: Release| {
            let rollout = description(&targets, &release.profile, &release.version).map(Rollout::of);
            let wave_unix_s = rollout.and_then(Result::ok).and_then(|rollout| wave(&rollout));
            Candidate { version: release.version, wave_unix_s }
        };
        let untried = |name: &UkiName| name.tries_left.is_some_and(|left| left > 0) && name.version > *self.running();
        let offered = self.ukis().into_iter().map(|uki| uki.name).filter(untried).map(|name| name.version);
        let recalled = |version: Version| choose::recalled(&known, &targets, &version).map(|why| (version, why));
        let recalled = offered.filter_map(recalled).collect();
        Ok(Look { candidate: chosen.map(candidate), recalled })
    }

    /// Writes a version into the slot that isn't running, whole, without offering it.
    pub fn stage(&self, version: &Version, progress: Progress) -> Result<()> {
        self.fetch(Some(version), Put::Ahead, progress).map(drop)
    }

    /// No longer offers a version that has never run; what is written of it stays. Not an error if it isn't offered.
    pub fn take_back(&self, version: &Version) -> Result<()> {
        self.with_esp(|esp| {
            let ukis = esp.ukis().map_err(Failure::io("look at the UKIs on the EFI system partition"))?;
            let untried = |uki: &&crate::esp::Uki| {
                let ours = uki.root_hash == Some(self.host.root_hash);
                !ours && uki.name.version == *version && uki.name.is_offered() && uki.name.tries_left.is_some()
            };
            let Some(uki) = ukis.iter().find(untried) else { return Ok(()) };
            // Remembered first: a release that is gone while it is pending would look as if it had failed.
            self.state.change(|state| {
                state.pending.take_if(|pending| pending.version == *version);
                state.note.take_if(|note| note.version == *version);
                state.writing = uki.root_hash.map(|root_hash| Writing { version: version.clone(), root_hash });
            })?;
            let name = uki.name.to_string();
            esp.remove(&name).map_err(Failure::io(format!("remove {name} from the EFI system partition")))
        })
    }
}

fn description<'a>(
    targets: &'a std::collections::BTreeMap<String, TargetFile>,
    profile: &str,
    version: &Version,
) -> Option<&'a TargetFile> {
    targets.get(&ReleaseFile::Description.target_name(profile, version))
}
