//! The state machine: what is next, decided from the settings, from what the host sees, from what is remembered and
//! from the clock. No I/O; [`super`] tells the whole way.
//!
//! [`step`] takes note of what came of the last action and returns the next one. Whoever drives it makes the record
//! durable before carrying an action out, wherever it changed.

use keel_spec::api::BadRelease;
use keel_spec::config::{Auto, Automatic, FleetLock, Reboot};
use keel_spec::release::Version;

use super::look::Candidate;
use super::memory::{ASK, Event, GIVE_BACK, Memory, TELL, WORK};
use super::record::{Lock, MAX_TOLD, Missed, Restart};
use super::report::Outcome;
use super::window::{self, Maintenance};

/// How old metadata may be when a release is written, offered or restarted into, in seconds.
pub const FRESH_S: u64 = 120;
/// Restarts that don't lead to a release before it is given up.
pub const MAX_RESTARTS: u32 = 3;
/// Longest that a machine takes to go down after it was asked to, in seconds.
pub const DOWN_WITHIN_S: u64 = 600;
/// Pause between two looks at a trial, in seconds.
const TRIAL_S: u64 = 5;
/// Longest wait, in seconds: whatever is forgotten is found out then.
pub const LONGEST_WAIT_S: u64 = 6 * 3600;

/// What the host sees.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Running release.
    pub running: &'a Version,
    /// Whether it has to prove itself.
    pub on_trial: bool,
    /// The kernel's random boot ID.
    pub boot_id: &'a str,
    /// What boots next.
    pub next_boot: &'a Version,
    /// The release that the other slot is being filled with, or was without being offered.
    pub writing: Option<&'a Version>,
    /// Releases that failed here.
    pub bad: &'a [BadRelease],
}

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing before then, seconds since the Unix epoch.
    Wait {
        /// When to ask again.
        until_unix_s: u64,
        /// Why.
        why: Why,
    },
    /// Look what the repository has, and whether what is about to boot is still listed.
    Look,
    /// Write a release without offering it.
    Stage(Version),
    /// Write what is missing of a release, and offer it.
    Install(Version),
    /// No longer offer a release.
    TakeBack(Version, String),
    /// Ask for the lock.
    Ask(FleetLock),
    /// Give the lock back.
    GiveBack(FleetLock),
    /// Restart the machine into a release.
    Restart(Version),
    /// Tell an outcome.
    Tell(Outcome),
}

/// Why nothing is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// The machine config says so.
    Off,
    /// An operator says so.
    Paused,
    /// The running release is on trial.
    Trial,
    /// The next look isn't due.
    NothingNewer,
    /// An operator rolled back, and the machine wasn't restarted yet.
    RolledBack(Version),
    /// Somebody else has to install it.
    Found(Version),
    /// It is this host's turn later; `None`: not by the schedule as it is.
    Wave(Version, Option<u64>),
    /// It is written; somebody else has to install it.
    Staged(Version),
    /// It boots next; somebody else has to restart the machine.
    OnDemand(Version),
    /// No maintenance window is open.
    Window(Version, Option<u64>),
    /// Others hold the lock, or nobody answers.
    Lock(Version),
    /// The last try failed.
    Again(Version),
    /// Restarts didn't lead to it.
    GaveUp(Version),
    /// The metadata can't be fetched or verified.
    Stale(Version),
    /// The machine is going down.
    Restarting(Version),
}

/// What is next but for giving the lock back and telling outcomes.
struct Goal {
    action: Action,
    /// Whether the lock is of use for it.
    wants_lock: bool,
}

/// Takes note of what came of the last action, and says what is next.
pub fn step(config: &Automatic, facts: &Facts, mut memory: Memory, event: Option<Event>, now: u64) -> (Memory, Action) {
    memory.settle_clock(config, now);
    if let Some(event) = event {
        memory.note(config, event, now);
    }
    settle_restart(config, facts, &mut memory, now);
    memory.record.offered.take_if(|offered| offered != facts.next_boot);
    settle_outcomes(config, facts, &mut memory, now);
    let goal = goal(config, facts, &memory, now);
    let action = next(config, facts, &memory, goal, now);
    match &action {
        Action::Ask(lock) => memory.record.lock = Lock::Asked(lock.clone()),
        Action::Restart(version) => {
            let (version, boot_id) = (version.clone(), facts.boot_id.to_owned());
            memory.record.restart = Some(Restart { version, boot_id, at_unix_s: now });
        }
        Action::Install(version) => memory.record.offered = Some(version.clone()),
        _ => {}
    }
    (memory, action)
}

/// Whether a restart that was asked for led to its release.
fn settle_restart(config: &Automatic, facts: &Facts, memory: &mut Memory, now: u64) {
    let Some(restart) = &memory.record.restart else { return };
    let same_boot = restart.boot_id == facts.boot_id;
    if facts.on_trial || same_boot && now.saturating_sub(restart.at_unix_s) < DOWN_WITHIN_S {
        return;
    }
    let version = restart.version.clone();
    memory.record.restart = None;
    if version == *facts.running || facts.bad.iter().any(|bad| bad.version == version) {
        memory.record.missed = None;
        return;
    }
    let before = memory.record.missed.as_ref().filter(|missed| missed.version == version);
    let restarts = before.map_or(0, |missed| missed.restarts).saturating_add(1);
    memory.record.missed = Some(Missed { version: version.clone(), restarts });
    let why = match same_boot {
        true => format!("restart into {version}: the machine didn't go down within {DOWN_WITHIN_S} s"),
        false => format!("restart into {version}: {} came up instead", facts.running),
    };
    memory.note(config, Event::NotRestarted(why), now);
}

/// Which outcomes there are to tell. What was so before this record began isn't told.
fn settle_outcomes(config: &Automatic, facts: &Facts, memory: &mut Memory, now: u64) {
    if facts.on_trial {
        return;
    }
    let record = &mut memory.record;
    let first = record.good.is_none();
    let tell = config.report_url.is_some() && !first;
    for bad in facts.bad.iter().rev() {
        let key = (bad.version.clone(), bad.at_unix_s);
        if record.told_bad.contains(&key) {
            continue;
        }
        record.told_bad.push(key);
        let excess = record.told_bad.len().saturating_sub(MAX_TOLD);
        record.told_bad.drain(..excess);
        if tell {
            let (version, other, reason) = (bad.version.clone(), facts.running.clone(), bad.reason.clone());
            record.add_outcome(Outcome { version, other, good: false, reason, at_unix_s: bad.at_unix_s });
        }
    }
    if record.good.as_ref() != Some(facts.running) {
        let before = record.good.replace(facts.running.clone());
        if let (true, Some(other)) = (tell, before) {
            let version = facts.running.clone();
            record.add_outcome(Outcome { version, other, good: true, reason: String::new(), at_unix_s: now });
        }
    }
    if config.report_url.is_none() {
        record.outcomes.clear();
    }
}

/// A lock that isn't of use goes back first; then outcomes are told; then the goal.
fn next(config: &Automatic, facts: &Facts, memory: &Memory, goal: Goal, now: u64) -> Action {
    let mut wait_until = u64::MAX;
    if let (Some(_), Maintenance::Open { until_unix_s }) = (&memory.record.offered, maintenance(config, now)) {
        wait_until = until_unix_s;
    }
    let kept = facts.on_trial || memory.record.restart.is_some() || goal.wants_lock;
    if let Some(lock) = memory.record.lock.place().filter(|_| !kept) {
        if memory.giving_back.ready(now, GIVE_BACK) {
            return Action::GiveBack(lock.clone());
        }
        wait_until = wait_until.min(memory.giving_back.until_unix_s);
    }
    if let Some(outcome) = memory.record.outcomes.front().filter(|_| !facts.on_trial) {
        if memory.telling.ready(now, TELL) {
            return Action::Tell(outcome.clone());
        }
        wait_until = wait_until.min(memory.telling.until_unix_s);
    }
    match goal.action {
        Action::Wait { until_unix_s, why } => {
            let until_unix_s = until_unix_s.min(wait_until).clamp(now + 1, now.saturating_add(LONGEST_WAIT_S));
            Action::Wait { until_unix_s, why }
        }
        action => action,
    }
}

fn wait(until_unix_s: u64, why: Why) -> Goal {
    Goal { action: Action::Wait { until_unix_s, why }, wants_lock: false }
}

fn act(action: Action) -> Goal {
    Goal { action, wants_lock: false }
}

/// From what stops everything to what comes last.
fn goal(config: &Automatic, facts: &Facts, memory: &Memory, now: u64) -> Goal {
    let look_at = memory.next_look_unix_s;
    if facts.on_trial {
        return wait(now + TRIAL_S, Why::Trial);
    }
    if let Some(restart) = &memory.record.restart {
        let until = restart.at_unix_s.saturating_add(DOWN_WITHIN_S);
        return wait(until, Why::Restarting(restart.version.clone()));
    }
    let offered = (facts.next_boot != facts.running).then_some(facts.next_boot);
    if let Some((version, why)) = offered.and_then(|offered| unwanted(config, memory, offered, now)) {
        return match memory.working.ready(now, WORK) {
            true => act(Action::TakeBack(version, why)),
            false => wait(memory.working.until_unix_s.min(look_at), Why::Again(version)),
        };
    }
    if let Some(why) = stopped(config, memory) {
        // Whoever does nothing by itself goes on watching what is about to boot: its publisher may withdraw it.
        let watched = offered.is_some_and(|offered| offered > facts.running);
        return match watched {
            false => wait(u64::MAX, why),
            true if now >= look_at => act(Action::Look),
            true => wait(look_at, why),
        };
    }
    // A lock in hand isn't given back for a look: it is wanted again right after it, or not.
    if now >= look_at {
        return Goal { action: Action::Look, wants_lock: matches!(memory.record.lock, Lock::Held { .. }) };
    }
    if let Some(older) = offered.filter(|offered| *offered < facts.running) {
        return wait(look_at, Why::RolledBack(older.clone()));
    }
    let candidate = memory.look.as_ref().and_then(|look| look.candidate.as_ref());
    match candidate.filter(|candidate| candidate.version > *facts.running) {
        None => wait(look_at, Why::NothingNewer),
        Some(candidate) => towards(config, facts, memory, candidate, now),
    }
}

/// Who wants nothing to be installed, if anybody does.
fn stopped(config: &Automatic, memory: &Memory) -> Option<Why> {
    if config.auto == Auto::Off {
        return Some(Why::Off);
    }
    memory.record.paused_unix_s.map(|_| Why::Paused)
}

/// Whether a restart may be now; where none waits for a window, always.
fn maintenance(config: &Automatic, now: u64) -> Maintenance {
    match config.reboot {
        Reboot::Window => window::at(&config.windows, now),
        Reboot::OnDemand | Reboot::Now => Maintenance::Open { until_unix_s: u64::MAX },
    }
}

/// Why a release that boots next should not, whatever else an operator wants: it is withdrawn, or was offered by this
/// policy and its window has closed, so that a power cut would boot it outside.
fn unwanted(config: &Automatic, memory: &Memory, offered: &Version, now: u64) -> Option<(Version, String)> {
    let mut recalled = memory.look.iter().flat_map(|look| &look.recalled);
    if let Some(recalled) = recalled.find(|(version, _)| version == offered) {
        return Some(recalled.clone());
    }
    let ours = memory.record.offered.as_ref() == Some(offered);
    let closed = matches!(maintenance(config, now), Maintenance::Closed { .. });
    (ours && closed).then(|| (offered.clone(), "the maintenance window closed before the restart".into()))
}

/// Towards a release that this host may have, now or later.
fn towards(config: &Automatic, facts: &Facts, memory: &Memory, candidate: &Candidate, now: u64) -> Goal {
    let (version, look_at) = (&candidate.version, memory.next_look_unix_s);
    if config.auto == Auto::Check {
        return wait(look_at, Why::Found(version.clone()));
    }
    match candidate.wave_unix_s {
        Some(at) if at <= now => {}
        at => return wait(look_at.min(at.unwrap_or(u64::MAX)), Why::Wave(version.clone(), at)),
    }
    let missed = memory.record.missed.as_ref().filter(|missed| missed.version == *version);
    if missed.is_some_and(|missed| missed.restarts >= MAX_RESTARTS) {
        return wait(look_at, Why::GaveUp(version.clone()));
    }
    let offered = facts.next_boot == version;
    let staged = memory.record.staged.as_ref() == Some(version) && facts.writing == Some(version);
    let ready = Ready { memory, version, now, wants_lock: false };
    if config.auto == Auto::Download {
        return match (offered, staged) {
            (true, _) => wait(look_at, Why::OnDemand(version.clone())),
            (false, true) => wait(look_at, Why::Staged(version.clone())),
            (false, false) => ready.to(Action::Stage(version.clone())),
        };
    }
    if config.reboot == Reboot::OnDemand {
        return match offered {
            true => wait(look_at, Why::OnDemand(version.clone())),
            false => ready.to(Action::Install(version.clone())),
        };
    }
    if !offered && !staged {
        return ready.to(Action::Stage(version.clone()));
    }
    if let Maintenance::Closed { opens_unix_s } = maintenance(config, now) {
        return wait(look_at.min(opens_unix_s.unwrap_or(u64::MAX)), Why::Window(version.clone(), opens_unix_s));
    }
    restart(config, Ready { wants_lock: true, ..ready }, offered)
}

/// The last steps: leave, offer, restart. Maintenance may be done now.
fn restart(config: &Automatic, ready: Ready, offered: bool) -> Goal {
    let (memory, version) = (ready.memory, ready.version);
    // A host that can't use the lock now doesn't keep others from it.
    if !ready.is_ready() {
        return ready.again();
    }
    if let Some(lock) = config.fleetlock.as_ref().filter(|lock| !memory.record.lock.is_held(lock)) {
        // One of another server or group goes back first, or nobody would know of it any more.
        if memory.record.lock.place().is_some_and(|other| other != lock) {
            return wait(memory.giving_back.until_unix_s, Why::Lock(version.clone()));
        }
        if !memory.asking.ready(ready.now, ASK) {
            let until = memory.asking.until_unix_s.min(memory.next_look_unix_s);
            return Goal { wants_lock: true, ..wait(until, Why::Lock(version.clone())) };
        }
        return ready.to(Action::Ask(lock.clone()));
    }
    match offered {
        true => ready.to(Action::Restart(version.clone())),
        false => ready.to(Action::Install(version.clone())),
    }
}

/// What has to be so before anything is done with a release.
#[derive(Clone, Copy)]
struct Ready<'a> {
    memory: &'a Memory,
    version: &'a Version,
    now: u64,
    wants_lock: bool,
}

impl Ready<'_> {
    fn is_ready(&self) -> bool {
        self.memory.working.ready(self.now, WORK)
    }

    /// Does it, when the last failure is long enough ago and the metadata is fresh.
    fn to(&self, action: Action) -> Goal {
        let memory = self.memory;
        let age_s = self.now.checked_sub(memory.looked_unix_s);
        if !self.is_ready() {
            self.again()
        } else if age_s.is_some_and(|age_s| age_s <= FRESH_S) {
            Goal { action, wants_lock: self.wants_lock }
        } else if memory.looking.failures == 0 {
            Goal { action: Action::Look, wants_lock: self.wants_lock }
        } else {
            wait(memory.next_look_unix_s, Why::Stale(self.version.clone()))
        }
    }

    fn again(&self) -> Goal {
        let until = self.memory.working.until_unix_s.min(self.memory.next_look_unix_s);
        wait(until, Why::Again(self.version.clone()))
    }
}

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
