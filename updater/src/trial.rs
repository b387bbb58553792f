//! Runs the gate against PID 1 and the health checks.

use std::path::Path;
use std::time::Duration;

use keel_link::control;
use keel_spec::api::boots::TrialOutcome;
use keel_spec::config::Health;
use keel_spec::control::Shutdown;
use keel_spec::paths;

use crate::containers::{self, Runs};
use crate::fallback::Reason;
use crate::gate::{self, Gate, OBSERVE_EVERY_MS, Verdict};
use crate::history::Keeper;
use crate::host;
use crate::network;
use crate::operations::Updater;
use crate::probe;

/// How much later than the gate PID 1 ends a trial by itself, should the updater have died.
const BACKSTOP_MARGIN_S: u32 = 30;
/// How often dropping the counter is tried.
const COMMIT_TRIES: u32 = 5;
const COMMIT_PAUSE: Duration = Duration::from_secs(2);

/// Watches the running release until it is good or has failed; then commits it, or restarts the machine.
pub fn run(updater: &Updater, history: &Keeper, health: &Health) {
    let margin_s = health.within_s.saturating_add(health.settle_s).saturating_add(BACKSTOP_MARGIN_S);
    let asked = control::Client::connect().and_then(|mut pid1| pid1.trial_deadline(u64::from(margin_s) * 1000));
    if let Err(error) = asked {
        log::warn!("move PID 1's deadline of the trial: {}", crate::failure::chain(&error));
    }
    log::info!("{} is on trial: it must be good within {} s after boot", updater.running(), health.within_s);
    let pending = updater.state().read().pending.filter(|pending| pending.version == *updater.running());
    let connected = health.network && pending.is_some_and(|pending| pending.connected);
    let mut gate = Gate::Waiting;
    let (mut last, mut runs) = (Vec::new(), Runs::new());
    // Bounded: the gate gives a verdict at the latest settle_s after within_s.
    loop {
        let wrong = observe(health, connected, &mut runs);
        if wrong != last {
            for line in &wrong {
                log::info!("trial: {line}");
            }
            last.clone_from(&wrong);
        }
        let verdict;
        (gate, verdict) = gate.step(health, host::since_boot_ms(), &wrong);
        match verdict {
            Verdict::Wait => std::thread::sleep(Duration::from_millis(OBSERVE_EVERY_MS)),
            Verdict::Passed => return passed(updater, history),
            Verdict::Failed(why) => return failed(updater, history, why),
        }
    }
}

/// What is wrong now. `connected`: the network has to be there.
fn observe(health: &Health, connected: bool, runs: &mut Runs) -> Vec<String> {
    let services = control::Client::connect().and_then(|mut pid1| pid1.services());
    let mut wrong = match services {
        Ok(services) => gate::services_wrong(&services),
        Err(error) => vec![format!("PID 1 not answering ({})", crate::failure::chain(&error))],
    };
    if connected && !network::is_connected() {
        wrong.push("no network, which there was when it was installed".into());
    }
    if wrong.is_empty() && health.containers {
        wrong = containers::wrong(Path::new(paths::API_SOCKET), &health.ignore_containers, runs);
    }
    // The checks may take seconds each; they wait until everything else is up.
    if wrong.is_empty() {
        wrong = probe::wrong(&health.checks);
    }
    wrong
}

fn passed(updater: &Updater, history: &Keeper) {
    tell(history, TrialOutcome::Passed, "");
    if let Err(error) = control::Client::connect().and_then(|mut pid1| pid1.trial_passed()) {
        log::error!("tell PID 1 that the trial passed: {}", crate::failure::chain(&error));
    }
    for attempt in 1..=COMMIT_TRIES {
        match updater.commit() {
            Ok(()) => return log::info!("{} proved itself and stays", updater.running()),
            Err(failure) => log::error!("commit {} (try {attempt}): {failure}", updater.running()),
        }
        std::thread::sleep(COMMIT_PAUSE);
    }
}

fn tell(history: &Keeper, outcome: TrialOutcome, reason: &str) {
    if let Err(failure) = history.trial_ended(outcome, reason) {
        log::error!("{failure}");
    }
}

fn failed(updater: &Updater, history: &Keeper, why: String) {
    tell(history, TrialOutcome::Failed, &why);
    let version = updater.running();
    let reason = format!("keel {version} failed its trial: {why}");
    log::error!("{reason}; restarting");
    let note = Reason::Gate(why).note(version);
    if let Err(failure) = updater.state().change(|state| state.take_note(note)) {
        log::error!("{failure}");
    }
    // PID 1's own deadline does the same should this fail.
    if let Err(error) = control::Client::connect().and_then(|mut pid1| pid1.shutdown(Shutdown::Reboot, &reason)) {
        log::error!("restart the machine: {}", crate::failure::chain(&error));
    }
}
