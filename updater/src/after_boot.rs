//! Takes note of how this boot came about: what the one before left behind goes into the state, which says whether a
//! release failed, and into the history.

use std::path::Path;

use keel_durable as durable;
use keel_spec::api::boots::Boot;
use keel_spec::control::System;
use keel_spec::last_words::{self, LastWords};
use keel_spec::paths;
use keel_spec::release::Version;

use crate::esp::Uki;
use crate::failure::Result;
use crate::fallback::{self, Next, Reason};
use crate::history::{self, Keeper, Now};
use crate::operations::Updater;
use crate::state::State;
use crate::{host, pstore};

/// What the boot before left behind.
struct Left {
    words: Option<LastWords>,
    kernel: pstore::Records,
    watchdog: bool,
}

/// Takes in what was left behind; says what is to be done in this boot.
pub fn run(updater: &Updater, system: &System) -> Result<(Next, Keeper)> {
    let left = Left { words: words(), kernel: kernel(), watchdog: system.watchdog_reset };
    let reason = left.reason();
    if let Some(reason) = &reason {
        log::warn!("before this boot: {}", reason.text());
    }
    let ukis = updater.ukis();
    let before = updater.state().read();
    // The history comes first: if power fails in between, it knows this boot, and the state is brought up to date anew.
    let keeper = begin_history(updater, system, &left, &before, &ukis)?;
    let boot = fallback::Boot {
        running: updater.running(),
        on_trial: system.on_trial,
        ukis: &ukis,
        evidence: reason,
        now_unix_s: host::now_unix_s(),
    };
    let (after, next) = fallback::step(before.clone(), &boot);
    for bad in after.bad.iter().filter(|bad| !before.bad.contains(bad)) {
        log::error!("keel {} failed on this machine and is not installed again: {}", bad.version, bad.reason);
    }
    if after != before {
        updater.state().write(&after)?;
    }
    left.forget();
    Ok((next, keeper))
}

impl Left {
    /// Why the boot before ended, if it wasn't asked to: the most telling reason.
    fn reason(&self) -> Option<Reason> {
        let panic = self.kernel.log.as_deref().and_then(pstore::panic_words).map(Reason::Panic);
        let expired = self.words.as_ref().filter(|words| words.trial_expired);
        let reasons =
            [panic, self.watchdog.then_some(Reason::Hung), expired.map(|words| Reason::Gate(words.reason.clone()))];
        reasons.into_iter().flatten().max_by_key(Reason::rank)
    }

    /// All of it is on the disk: the next boot must not take it for its own past.
    fn forget(&self) {
        if let Err(error) = self.kernel.remove() {
            log::warn!("remove the kernel's last words from {}: {error}", pstore::FOLDER);
        }
        if let Err(error) = durable::remove(Path::new(paths::LAST_WORDS)) {
            log::warn!("remove {}: {error}", paths::LAST_WORDS);
        }
    }
}

fn words() -> Option<LastWords> {
    let bytes = durable::read(Path::new(paths::LAST_WORDS), last_words::MAX_BYTES).unwrap_or_else(|error| {
        log::warn!("read {}: {error}", paths::LAST_WORDS);
        None
    });
    LastWords::parse(&String::from_utf8_lossy(&bytes?))
}

fn kernel() -> pstore::Records {
    pstore::read(Path::new(pstore::FOLDER)).unwrap_or_else(|error| {
        log::warn!("read the kernel's last words in {}: {error}", pstore::FOLDER);
        pstore::Records::default()
    })
}

fn begin_history(updater: &Updater, system: &System, left: &Left, state: &State, ukis: &[Uki]) -> Result<Keeper> {
    let running = updater.running();
    let tries_of = |version: &Version| {
        let name = &ukis.iter().find(|uki| uki.name.version == *version)?.name;
        Some((name.tries_left?, name.tries_done))
    };
    let own = tries_of(running).filter(|_| system.on_trial);
    let tried = match (&state.pending, own) {
        (_, Some((_, done))) => Some((running, done)),
        (Some(pending), None) => tries_of(&pending.version).map(|(_, done)| (&pending.version, done)),
        (None, None) => None,
    };
    let now = Now {
        boot: Boot {
            number: 0,
            boot_id: system.boot_id.clone(),
            started_unix_s: host::now_unix_s().saturating_sub(host::since_boot_ms() / 1000),
            clock_known: !system.clock_behind,
            version: running.clone(),
            slot: updater.status("")?.slot,
            trial: own.map(|(left, done)| history::step::trial(left, done)),
            ran_ms: 0,
            end: None,
        },
        words: left.words.clone(),
        panic: left.kernel.log.as_deref().and_then(pstore::panic_words),
        watchdog: left.watchdog,
        tried,
        demoted: state.demoted.first(),
    };
    Keeper::begin(Path::new(paths::UPDATER_STATE), &now, left.kernel.log.as_deref())
}
