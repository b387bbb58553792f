//! What the policy remembers: over restarts ([`Record`]), and within a boot.

use keel_spec::config::Automatic;
use keel_spec::release::Version;

use super::backoff::{Backoff, Pauses};
use super::look::Look;
use super::record::Record;
use super::wave;

/// Pauses between tries to write or install a release.
pub const WORK: Pauses = Pauses { first_s: 60, most_s: 6 * 3600 };
/// Pauses between questions for the lock: others hold it for minutes.
pub const ASK: Pauses = Pauses { first_s: 30, most_s: 300 };
/// Pauses between tries to give the lock back: others wait for it.
pub const GIVE_BACK: Pauses = Pauses { first_s: 10, most_s: 600 };
/// Pauses between tries to tell an outcome.
pub const TELL: Pauses = Pauses { first_s: 60, most_s: 3600 };
/// First pause after a look that failed; the longest is the time between two looks.
const LOOK_AGAIN_S: u64 = 60;
/// Most seconds between the updater's start and its first look, so that hosts which start together don't look
/// together.
const FIRST_LOOK_S: u64 = 120;
/// Tries to tell one outcome.
const MAX_TELLS: u32 = 200;

/// What the policy remembers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// This host's ID.
    pub host_id: String,
    /// What outlives a restart.
    pub record: Record,
    /// What the last look found; `None`: there was none since the updater started.
    pub look: Option<Look>,
    /// When that was, seconds since the Unix epoch.
    pub looked_unix_s: u64,
    /// When the next look is due; 0: not decided yet.
    pub next_look_unix_s: u64,
    /// Looks that failed.
    pub looking: Backoff,
    /// Writes and installs that failed.
    pub working: Backoff,
    /// Questions for the lock that weren't granted.
    pub asking: Backoff,
    /// Tries to give it back that failed.
    pub giving_back: Backoff,
    /// Tries to tell an outcome that failed.
    pub telling: Backoff,
    /// What failed last, until something works again.
    pub problem: Option<String>,
}

/// What came of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A look at the repository.
    Looked(Result<Look, String>),
    /// A release was written.
    Staged(Version, Result<(), String>),
    /// A release was written and is offered.
    Installed(Version, Result<(), String>),
    /// A release is no longer offered.
    TakenBack(Version, Result<(), String>),
    /// The lock was asked for.
    Asked(super::fleetlock::Leave),
    /// The lock was given back.
    GivenBack(Result<(), String>),
    /// A restart was asked for; only failures are told, for there is nobody to hear otherwise.
    NotRestarted(String),
    /// An outcome was told.
    Told(Result<(), String>),
    /// An operator wants nothing done.
    Paused,
    /// An operator wants it to go on.
    Resumed,
}

impl Memory {
    /// Of a host, when its updater starts.
    pub fn new(host_id: String, record: Record) -> Self {
        Self { host_id, record, ..Self::default() }
    }

    /// A share of a pause, out of 1,000.
    fn share(&self, salt: u64) -> u64 {
        wave::spread(&self.host_id, salt, 250)
    }

    /// Decides when the first look is due, and mends what a clock that was set back has spoiled.
    pub fn settle_clock(&mut self, config: &Automatic, now: u64) {
        let longest = u64::from(config.check.every_min + config.check.jitter_min) * 60 + FIRST_LOOK_S;
        if self.next_look_unix_s == 0 || self.next_look_unix_s > now.saturating_add(longest) {
            self.next_look_unix_s = now + wave::spread(&self.host_id, now, FIRST_LOOK_S);
        }
        if let Some(restart) = &mut self.record.restart {
            restart.at_unix_s = restart.at_unix_s.min(now);
        }
    }

    /// Takes note of what came of an action.
    pub fn note(&mut self, config: &Automatic, event: Event, now: u64) {
        use super::fleetlock::Leave;
        use super::record::Lock;
        match event {
            Event::Looked(outcome) => self.looked(config, outcome, now),
            Event::Staged(version, Ok(())) => {
                self.record.staged = Some(version);
                self.worked();
            }
            Event::Installed(_, Ok(())) => {
                self.record.staged = None;
                self.worked();
            }
            Event::TakenBack(version, Ok(())) => {
                if let Some(look) = &mut self.look {
                    look.recalled.retain(|(recalled, _)| *recalled != version);
                }
                // What was offered was written whole.
                if self.record.offered.take_if(|offered| *offered == version).is_some() {
                    self.record.staged = Some(version);
                }
                self.worked();
            }
            Event::Staged(_, Err(why)) | Event::Installed(_, Err(why)) | Event::TakenBack(_, Err(why)) => {
                self.working = self.working.failed(now, WORK, self.share(now));
                // It may have been withdrawn in the very moment.
                self.looked_unix_s = 0;
                self.problem = Some(why);
            }
            Event::Asked(Leave::Granted) => {
                if let Some(of) = self.record.lock.place().cloned() {
                    self.record.lock = Lock::Held { of, since_unix_s: now };
                }
                self.asking = Backoff::default();
                self.problem = None;
            }
            Event::Asked(Leave::Denied(why)) => {
                self.record.lock = Lock::Free;
                self.asked_in_vain(why, now);
            }
            Event::Asked(Leave::Unknown(why)) => self.asked_in_vain(why, now),
            Event::GivenBack(Ok(())) => {
                self.record.lock = Lock::Free;
                self.giving_back = Backoff::default();
                self.problem = None;
            }
            Event::GivenBack(Err(why)) => {
                self.giving_back = self.giving_back.failed(now, GIVE_BACK, self.share(now));
                self.problem = Some(why);
            }
            Event::NotRestarted(why) => {
                self.record.restart = None;
                self.working = self.working.failed(now, WORK, self.share(now));
                self.problem = Some(why);
            }
            Event::Told(outcome) => self.told(outcome, now),
            Event::Paused => {
                self.record.paused_unix_s.get_or_insert(now);
            }
            Event::Resumed => {
                self.record.paused_unix_s = None;
                self.record.missed = None;
                self.working = Backoff::default();
                self.asking = Backoff::default();
                self.next_look_unix_s = now;
            }
        }
    }

    fn looked(&mut self, config: &Automatic, outcome: Result<Look, String>, now: u64) {
        let every_s = u64::from(config.check.every_min) * 60;
        match outcome {
            Ok(look) => {
                let jitter_s = wave::spread(&self.host_id, now, u64::from(config.check.jitter_min) * 60 + 1);
                self.next_look_unix_s = now + every_s + jitter_s;
                self.looked_unix_s = now;
                self.looking = Backoff::default();
                let version = |look: &Look| look.candidate.as_ref().map(|candidate| candidate.version.clone());
                if self.look.as_ref().and_then(version) != version(&look) {
                    self.working = Backoff::default();
                }
                self.look = Some(look);
                self.problem = None;
            }
            Err(why) => {
                let pauses = Pauses { first_s: LOOK_AGAIN_S, most_s: every_s.max(LOOK_AGAIN_S) };
                self.looking = self.looking.failed(now, pauses, self.share(now));
                self.next_look_unix_s = self.looking.until_unix_s;
                self.problem = Some(why);
            }
        }
    }

    fn worked(&mut self) {
        self.working = Backoff::default();
        self.problem = None;
    }

    fn asked_in_vain(&mut self, why: String, now: u64) {
        self.asking = self.asking.failed(now, ASK, self.share(now));
        self.problem = Some(why);
    }

    fn told(&mut self, outcome: Result<(), String>, now: u64) {
        let why = outcome.err();
        if why.is_none() || self.telling.failures >= MAX_TELLS {
            self.record.outcomes.pop_front();
            self.telling = Backoff::default();
        } else {
            self.telling = self.telling.failed(now, TELL, self.share(now));
        }
        // That nobody hears of an outcome is no reason to hide what else is wrong.
        self.problem = self.problem.take().or(why);
    }
}
