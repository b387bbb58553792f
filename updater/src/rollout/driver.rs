//! The thread that carries out what the policy decides, with the real clock.
//!
//! [`Driver::decide`] makes what changed durable, then [`Driver::carry_out`] acts; what came of it goes into the next
//! decision. A host may stop between any two of these.

use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keel_fetch::Client;
use keel_spec::api::{AutomaticStatus, BadRelease};
use keel_spec::config::{Automatic, Settings};
use keel_spec::release::Version;

use super::look::Look;
use super::memory::{Event, Memory};
use super::policy::{self, Action, Facts};
use super::record::{File, Record};
use super::{fleetlock, http, report, status};
use crate::failure::Result;

/// Pause while an operator's operation runs, or this host's disk fails.
const BUSY_PAUSE: Duration = Duration::from_secs(5);
/// Longest sleep at a stretch: the wall's clock may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// What the host sees; [`Facts`] borrow it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Running release.
    pub running: Version,
    /// Whether it has to prove itself.
    pub on_trial: bool,
    /// The kernel's random boot ID.
    pub boot_id: String,
    /// What boots next.
    pub next_boot: Version,
    /// The release that the other slot is being filled with, or was without being offered.
    pub writing: Option<Version>,
    /// Releases that failed here.
    pub bad: Vec<BadRelease>,
}

/// Why an operation of the host wasn't done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Another one runs.
    Busy,
    /// It failed.
    Failed(String),
}

/// The host, and its clock.
pub trait World {
    /// Now, seconds since the Unix epoch.
    fn now_unix_s(&self) -> u64;
    /// What the host sees.
    fn see(&self) -> Result<Seen>;
    /// Looks what the repository has for a host of this ID.
    fn look(&self, host_id: &str) -> Result<Look, Trouble>;
    /// Writes a release without offering it.
    fn stage(&self, version: &Version) -> Result<(), Trouble>;
    /// Writes what is missing of a release, and offers it.
    fn install(&self, version: &Version) -> Result<(), Trouble>;
    /// No longer offers a release.
    fn take_back(&self, version: &Version) -> Result<(), Trouble>;
    /// Asks for a restart.
    fn restart(&self, reason: &str) -> Result<(), Trouble>;
}

/// Carries out what the policy decides.
pub struct Driver {
    config: Automatic,
    hostname: String,
    client: Result<Client, String>,
    file: File,
    inner: Mutex<Inner>,
    wake: Condvar,
}

struct Inner {
    memory: Memory,
    /// What is on the disk.
    written: Record,
    /// What is next, or being done.
    action: Action,
    /// Whether something changed that the policy should see at once.
    poked: bool,
}

impl Driver {
    /// With what a folder remembers.
    pub fn open(folder: &Path, settings: &Settings) -> Result<Self> {
        let config = settings.update.automatic.clone();
        let file = File::new(folder);
        let record = file.read(config.fleetlock.as_ref());
        let memory = Memory::new(file.host_id()?, record.clone());
        let action = Action::Wait { until_unix_s: 0, why: policy::Why::NothingNewer };
        let inner = Inner { memory, written: record, action, poked: false };
        Ok(Self {
            hostname: settings.hostname.clone(),
            client: http::client(settings),
            config,
            file,
            inner: Mutex::new(inner),
            wake: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the policy is.
    pub fn status(&self, now_unix_s: u64) -> AutomaticStatus {
        let inner = self.lock();
        status::status(&self.config, &inner.memory, &inner.action, now_unix_s)
    }

    /// From now on nothing is done until [`Driver::resume`]; over restarts, too. What is being done is finished.
    pub fn pause(&self, now_unix_s: u64) -> Result<()> {
        self.tell(Event::Paused, now_unix_s)
    }

    /// Goes on, and looks for a release at once.
    pub fn resume(&self, now_unix_s: u64) -> Result<()> {
        self.tell(Event::Resumed, now_unix_s)
    }

    /// What an operator says is durable before it is answered.
    fn tell(&self, event: Event, now_unix_s: u64) -> Result<()> {
        let mut inner = self.lock();
        let mut memory = inner.memory.clone();
        memory.note(&self.config, event, now_unix_s);
        self.file.write(&memory.record)?;
        inner.written = memory.record.clone();
        inner.memory = memory;
        inner.poked = true;
        self.wake.notify_all();
        Ok(())
    }

    /// Decides what is next, with what came of the last action. It is durable that it was decided.
    pub fn decide(&self, world: &dyn World, event: Option<Event>) -> Result<Action> {
        let seen = world.see()?;
        let facts = Facts {
            running: &seen.running,
            on_trial: seen.on_trial,
            boot_id: &seen.boot_id,
            next_boot: &seen.next_boot,
            writing: seen.writing.as_ref(),
            bad: &seen.bad,
        };
        let mut inner = self.lock();
        let memory = std::mem::take(&mut inner.memory);
        let (memory, action) = policy::step(&self.config, &facts, memory, event, world.now_unix_s());
        inner.memory = memory;
        inner.poked = false;
        if inner.memory.record != inner.written {
            if let Err(failure) = self.file.write(&inner.memory.record) {
                // What wasn't begun isn't waited for.
                let restart = inner.written.restart.clone();
                inner.memory.record.restart = restart;
                return Err(failure);
            }
            inner.written = inner.memory.record.clone();
        }
        inner.action = action.clone();
        Ok(action)
    }

    /// Does it. `None`: nothing came of it, or there is nothing to do.
    pub fn carry_out(&self, world: &dyn World, action: &Action) -> Option<Event> {
        let done = |outcome: Result<(), Trouble>, event: fn(Version, Result<(), String>) -> Event, of: &Version| {
            without_busy(outcome).map(|outcome| event(of.clone(), outcome))
        };
        let host_id = self.lock().memory.host_id.clone();
        match action {
            Action::Wait { .. } => None,
            Action::Look => without_busy(world.look(&host_id)).map(Event::Looked),
            Action::Stage(version) => done(world.stage(version), Event::Staged, version),
            Action::Install(version) => done(world.install(version), Event::Installed, version),
            Action::TakeBack(version, why) => {
                log::warn!("{version} no longer boots next: {why}");
                done(world.take_back(version), Event::TakenBack, version)
            }
            Action::Ask(lock) => Some(Event::Asked(match &self.client {
                Ok(client) => fleetlock::take(client, lock, &host_id),
                Err(why) => fleetlock::Leave::Unknown(why.clone()),
            })),
            Action::GiveBack(lock) => {
                let client = self.client.as_ref().map_err(Clone::clone);
                Some(Event::GivenBack(client.and_then(|client| fleetlock::give_back(client, lock, &host_id))))
            }
            Action::Restart(version) => {
                let failed = world.restart(&format!("restart into keel {version}")).err();
                failed.map(|trouble| Event::NotRestarted(trouble.text()))
            }
            Action::Tell(outcome) => {
                let sender = report::Sender {
                    host_id,
                    hostname: self.hostname.clone(),
                    channel: self.config.channel.to_string(),
                };
                let url = self.config.report_url.as_deref()?;
                let client = self.client.as_ref().map_err(Clone::clone);
                Some(Event::Told(client.and_then(|client| report::send(client, url, &sender, outcome))))
            }
        }
    }

    /// Decides and acts for as long as the program runs.
    pub fn run(&self, world: &dyn World) {
        let mut event = None;
        loop {
            let action = match self.decide(world, event.take()) {
                Ok(action) => action,
                Err(failure) => {
                    log::error!("{failure}");
                    self.sleep(BUSY_PAUSE);
                    continue;
                }
            };
            if let Action::Wait { until_unix_s, .. } = action {
                self.sleep(Duration::from_secs(until_unix_s.saturating_sub(world.now_unix_s())));
                continue;
            }
            event = self.carry_out(world, &action);
            match event.as_ref().and_then(failure) {
                Some(why) => log::warn!("{why}"),
                None if event.is_none() => self.sleep(BUSY_PAUSE),
                None => {}
            }
        }
    }

    /// Until then, or until something changes.
    fn sleep(&self, longest: Duration) {
        let inner = self.lock();
        let outcome = self.wake.wait_timeout_while(inner, longest.min(LONGEST_SLEEP), |inner| !inner.poked);
        drop(outcome);
    }
}

fn without_busy<T>(outcome: Result<T, Trouble>) -> Option<Result<T, String>> {
    match outcome {
        Ok(value) => Some(Ok(value)),
        Err(Trouble::Busy) => None,
        Err(Trouble::Failed(why)) => Some(Err(why)),
    }
}

impl Trouble {
    fn text(self) -> String {
        match self {
            Self::Busy => "the updater is busy".into(),
            Self::Failed(why) => why,
        }
    }
}

/// What failed, for the log.
fn failure(event: &Event) -> Option<&str> {
    match event {
        Event::Looked(Err(why)) | Event::GivenBack(Err(why)) | Event::Told(Err(why)) | Event::NotRestarted(why) => {
            Some(why)
        }
        Event::Staged(_, Err(why)) | Event::Installed(_, Err(why)) | Event::TakenBack(_, Err(why)) => Some(why),
        Event::Asked(fleetlock::Leave::Denied(why) | fleetlock::Leave::Unknown(why)) => Some(why),
        _ => None,
    }
}
