//! After a boot: did the new release come up, and if not, why.
//!
//! The boot loader is what falls back; this only finds out that it did, from the names that it left on the EFI system
//! partition. Each failed try may leave a reason: the gate's own note, the kernel's last words in pstore, a watchdog
//! that had to bite. They are collected at every start, under trial too, and the most telling one is what is said.

use keel_spec::api::BadRelease;
use keel_spec::release::Version;

use crate::esp::Uki;
use crate::state::{Note, State};

/// Why a try of a release failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The gate gave up on it and said why.
    Gate(String),
    /// The kernel panicked with these words.
    Panic(String),
    /// The hardware watchdog reset the machine.
    Hung,
    /// Nothing was left behind.
    Unknown,
}

impl Reason {
    /// How telling it is.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Hung => 1,
            Self::Panic(_) => 2,
            Self::Gate(_) => 3,
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Gate(why) => format!("gate-failed: {why}"),
            Self::Panic(words) => format!("kernel panic: {words}"),
            Self::Hung => "hung: the hardware watchdog reset the machine".into(),
            Self::Unknown => {
                "did not come up; no reason was left behind (power cut, or the firmware refused it)".into()
            }
        }
    }

    /// As a note on a release.
    pub fn note(&self, version: &Version) -> Note {
        Note { version: version.clone(), reason: self.text(), rank: self.rank() }
    }
}

/// What is to be done after a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The running release is on trial.
    Gate,
    /// Nothing.
    Nothing,
}

/// What a boot shows.
pub struct Boot<'a> {
    /// Running release.
    pub running: &'a Version,
    /// Whether the boot loader still counts its tries.
    pub on_trial: bool,
    /// UKIs on the EFI system partition.
    pub ukis: &'a [Uki],
    /// What was left behind since the last start, if anything.
    pub evidence: Option<Reason>,
    /// Now, seconds since the Unix epoch.
    pub now_unix_s: u64,
}

/// Brings the state up to date with what a boot shows.
pub fn step(mut state: State, boot: &Boot) -> (State, Next) {
    // Whatever was left behind was left by the try before this boot: of the release pending, if there is one.
    let tried = state.pending.as_ref().map(|pending| pending.version.clone());
    if let (Some(reason), Some(version)) = (&boot.evidence, &tried) {
        state.take_note(reason.note(version));
    }
    if boot.on_trial {
        return (state, Next::Gate);
    }
    for version in failed(&state, boot) {
        let note = state.note.take_if(|note| note.version == version);
        let evidence = note.map(|note| note.reason).or(boot.evidence.as_ref().map(Reason::text));
        let reason = evidence.unwrap_or_else(|| Reason::Unknown.text());
        state.add_bad(BadRelease { version, reason, at_unix_s: boot.now_unix_s });
    }
    let over = |version: &Version| *version == *boot.running || state.is_bad(version);
    if state.pending.as_ref().is_some_and(|pending| over(&pending.version)) {
        state.pending = None;
        state.note = None;
    }
    // What runs and is offered was chosen again. Right after a rollback the running release isn't offered any more.
    let offered = |version: &Version| boot.ukis.iter().any(|uki| uki.name.version == *version && uki.name.is_offered());
    state.demoted.retain(|version| version != boot.running || !offered(version));
    (state, Next::Nothing)
}

/// Releases that the boot loader gave up on: without tries left, not because an operator said so; or installed, not
/// running, and gone.
fn failed(state: &State, boot: &Boot) -> Vec<Version> {
    let known = |version: &Version| version == boot.running || state.is_bad(version) || state.demoted.contains(version);
    let out_of_tries = boot.ukis.iter().filter(|uki| !uki.name.is_offered()).map(|uki| &uki.name.version);
    let gone = state
        .pending
        .iter()
        .map(|pending| &pending.version)
        .filter(|version| boot.ukis.iter().all(|uki| uki.name.version != **version));
    let mut failed: Vec<Version> = out_of_tries.chain(gone).filter(|version| !known(version)).cloned().collect();
    failed.sort();
    failed.dedup();
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Pending;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn ukis(names: &[&str]) -> Vec<Uki> {
        let uki = |name: &&str| Uki { name: name.parse().unwrap(), size_bytes: 1, root_hash: None };
        names.iter().map(uki).collect()
    }

    fn pending(text: &str) -> State {
        let pending = Pending { version: version(text), from: version("1.0.0"), at_unix_s: 1, connected: true };
        State { pending: Some(pending), ..State::default() }
    }

    fn boot(state: State, running: &str, on_trial: bool, names: &[&str], evidence: Option<Reason>) -> (State, Next) {
        let (running, ukis) = (version(running), ukis(names));
        step(state, &Boot { running: &running, on_trial, ukis: &ukis, evidence, now_unix_s: 9 })
    }

    #[test]
    fn a_release_without_tries_left_is_bad_and_its_best_reason_is_kept() {
        let (state, next) =
            boot(pending("2.0.0"), "2.0.0", true, &["keel_2.0.0+1-2.efi"], Some(Reason::Panic("oops".into())));
        assert_eq!(next, Next::Gate);
        let (state, next) = boot(state, "1.0.0", false, &["keel_1.0.0.efi", "keel_2.0.0+0-3.efi"], Some(Reason::Hung));
        assert_eq!((next, &*state.bad[0].reason, &state.pending), (Next::Nothing, "kernel panic: oops", &None));
        assert_eq!((state.bad[0].version.clone(), state.bad[0].at_unix_s), (version("2.0.0"), 9));
    }

    #[test]
    fn a_release_that_still_has_tries_is_not_bad() {
        let (state, _) = boot(pending("2.0.0"), "1.0.0", false, &["keel_1.0.0.efi", "keel_2.0.0+2-1.efi"], None);
        assert!(state.bad.is_empty() && state.pending.is_some());
    }

    #[test]
    fn a_release_that_left_nothing_behind_is_bad_for_an_unknown_reason() {
        let (state, _) = boot(pending("2.0.0"), "1.0.0", false, &["keel_1.0.0.efi"], None);
        assert!(state.bad[0].reason.contains("no reason was left behind"));
    }

    #[test]
    fn a_release_that_was_rolled_back_from_is_not_bad() {
        let mut state = State::default();
        state.demote(&version("2.0.0"));
        let (state, _) = boot(state, "1.0.0", false, &["keel_1.0.0.efi", "keel_2.0.0+0-1.efi"], None);
        assert!(state.bad.is_empty() && state.demoted.len() == 1);
    }

    #[test]
    fn a_restart_of_the_updater_between_rollback_and_reboot_does_not_make_the_release_bad() {
        let mut state = State::default();
        state.demote(&version("2.0.0"));
        let names = ["keel_1.0.0.efi", "keel_2.0.0+0-1.efi"];
        let (state, _) = boot(state, "2.0.0", false, &names, None);
        let (state, _) = boot(state, "1.0.0", false, &names, None);
        assert!(state.bad.is_empty());
    }

    #[test]
    fn a_good_release_that_rotted_is_bad_without_having_been_pending() {
        let rot = Some(Reason::Panic("dm-verity device corrupted".into()));
        let (state, _) = boot(State::default(), "1.0.0", false, &["keel_1.0.0.efi", "keel_2.0.0+0-1.efi"], rot);
        assert!(state.bad[0].reason.contains("dm-verity"));
    }

    #[test]
    fn a_release_that_proved_itself_is_no_longer_pending() {
        let (state, _) = boot(pending("2.0.0"), "2.0.0", false, &["keel_2.0.0.efi"], None);
        assert_eq!(state, State::default());
    }
}
