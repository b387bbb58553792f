//! A fleet: many hosts with the real policy and a simulated clock, against a simulated world that fails at times.
//!
//! - `population`: which hosts there are
//! - `world`: repository, lock server, collector, publisher
//!
//! What must hold is checked at every restart; what came of it all is counted.

pub mod population;
pub mod world;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use keel_spec::api::BadRelease;
use keel_spec::config::{Automatic, Reboot};
use keel_spec::release::Version;
use keel_updater::rollout::fleetlock::Leave;
use keel_updater::rollout::memory::{Event, Memory};
use keel_updater::rollout::policy::{self, Action, Facts};
use keel_updater::rollout::record::Record;
use keel_updater::rollout::wave::spread;
use keel_updater::rollout::window::{self, Maintenance};
use population::Host;
use world::World;

/// Seconds that things take.
const LOOK_S: u64 = 2;
const OFFER_S: u64 = 20;
const ASK_S: u64 = 1;
const BOOT_S: u64 = 60;
const TRIAL_S: u64 = 30;
/// Three tries of a bad release, each until the gate gives up.
const FAILED_TRIALS_S: u64 = 3 * (BOOT_S + 120);
/// One in so many wakings ends in a power cut.
const POWER_CUTS: u64 = 20_000;

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Restarts that the policy asked for.
    pub restarts: u64,
    /// Of these, outside the host's maintenance window.
    pub outside_window: u64,
    /// Of these, without holding the lock that the host needs.
    pub without_lock: u64,
    /// Of these, into a release whose withdrawal the host could have known of: older than fresh metadata may be.
    pub into_withdrawn: u64,
    /// Hosts that ran the bad release, on trial or as a good one.
    pub got_bad_release: u64,
    /// Of these, those on which it failed.
    pub failed: u64,
    /// Decisions of the policy.
    pub steps: u64,
    /// Looks at the repository.
    pub looks: u64,
    /// Power cuts.
    pub power_cuts: u64,
    /// When every host that was to had the last release, seconds after the start.
    pub done_after_s: u64,
    /// Hosts that should have the last release at the end, and haven't.
    pub stuck: u64,
    /// Locks that are held at the end.
    pub locks_left: u64,
}

/// One simulated fleet.
pub struct Fleet {
    /// All hosts.
    pub hosts: Vec<Host>,
    /// What is around them.
    pub world: World,
    /// What came of it so far.
    pub figures: Figures,
    queue: BinaryHeap<Reverse<(u64, u32)>>,
}

impl Fleet {
    /// Hosts that all start within a minute.
    pub fn new(hosts: Vec<Host>, world: World) -> Self {
        let start = world.start;
        let queue = (0..hosts.len() as u32).map(|index| Reverse((start + u64::from(index % 60), index))).collect();
        Self { hosts, world, figures: Figures::default(), queue }
    }

    /// Runs until then.
    pub fn run(&mut self, until: u64) {
        while let Some(Reverse((now, index))) = self.queue.pop() {
            if now >= until {
                self.queue.push(Reverse((now, index)));
                break;
            }
            self.world.pass(now);
            let next = self.wake(index as usize, now);
            self.queue.push(Reverse((next.max(now + 1), index)));
        }
        self.finish();
    }

    fn finish(&mut self) {
        let last = self.world.last().clone();
        self.figures.stuck = self.hosts.iter().filter(|host| host.counts && host.running != last).count() as u64;
        self.figures.locks_left = self.world.locks.held();
    }

    /// One waking of a host; when the next one is.
    fn wake(&mut self, index: usize, now: u64) -> u64 {
        let Some(host) = self.hosts.get_mut(index) else { return u64::MAX };
        host.wakings += 1;
        if spread(&host.id, host.wakings, POWER_CUTS) == 0 {
            self.figures.power_cuts += 1;
            host.boot(host.next_boot.clone());
            host.trial(&self.world, now + BOOT_S);
            return now + BOOT_S;
        }
        self.end_trial(index, now);
        let Some(host) = self.hosts.get_mut(index) else { return u64::MAX };
        if host.operator_restarts_at.is_some_and(|at| at <= now) {
            host.operator_restarts_at = Some(now + 3 * 86_400);
            if host.next_boot != host.running {
                host.boot(host.next_boot.clone());
                host.trial(&self.world, now + BOOT_S);
                return now + BOOT_S;
            }
        }
        let event = host.pending.take();
        let action = host.step(event, now);
        self.figures.steps += 1;
        self.act(index, action, now)
    }

    /// A trial whose end has come ends, well or badly.
    fn end_trial(&mut self, index: usize, now: u64) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        let Some((at, good)) = host.trial_ends.filter(|(at, _)| *at <= now) else { return };
        host.trial_ends = None;
        let version = host.running.clone();
        if version == *self.world.bad_version() {
            self.figures.got_bad_release += 1;
            self.figures.failed += u64::from(!good);
        }
        if good {
            host.on_trial = false;
            host.good.clone_from(&version);
        } else {
            host.bad.insert(0, BadRelease { version, reason: "gate-failed".into(), at_unix_s: at });
            host.boot(host.good.clone());
        }
        let last = self.world.last();
        if host.counts && host.running == *last {
            self.figures.done_after_s = now - self.world.start;
        }
    }

    fn act(&mut self, index: usize, action: Action, now: u64) -> u64 {
        let (world, figures) = (&mut self.world, &mut self.figures);
        let Some(host) = self.hosts.get_mut(index) else { return u64::MAX };
        let chance = |most| spread(&host.id, now, most);
        match action {
            Action::Wait { until_unix_s, .. } => {
                let trial = host.trial_ends.map_or(u64::MAX, |(at, _)| at);
                until_unix_s.min(trial).min(host.operator_restarts_at.unwrap_or(u64::MAX))
            }
            Action::Look => {
                figures.looks += 1;
                let failed = chance(500) == 0;
                let look = if failed { Err("no answer".into()) } else { Ok(world.look(host, now)) };
                host.after(Event::Looked(look), now + LOOK_S)
            }
            Action::Stage(version) => {
                let took_s = 60 + chance(600);
                if chance(200) == 1 {
                    return host.after(Event::Staged(version, Err("cut".into())), now + took_s);
                }
                host.writing = Some(version.clone());
                host.after(Event::Staged(version, Ok(())), now + took_s)
            }
            Action::Install(version) => {
                if world.is_withdrawn(&version, now) {
                    // The updater itself looks again, and refuses.
                    return host.after(Event::Installed(version, Err("withdrawn".into())), now + LOOK_S);
                }
                (host.next_boot, host.writing) = (version.clone(), None);
                host.after(Event::Installed(version, Ok(())), now + OFFER_S)
            }
            Action::TakeBack(version, _) => {
                host.next_boot = host.running.clone();
                host.after(Event::TakenBack(version, Ok(())), now + LOOK_S)
            }
            Action::Ask(lock) => {
                // Lost before it came, lost on its way back, or late.
                let luck = chance(100);
                let granted = luck != 0 && world.locks.take(&lock.group, index);
                let leave = match (granted, luck) {
                    (_, 0 | 1) => Leave::Unknown("no answer".into()),
                    (true, _) => Leave::Granted,
                    (false, _) => Leave::Denied("taken".into()),
                };
                host.after(Event::Asked(leave), now + if luck == 2 { 90 } else { ASK_S })
            }
            Action::GiveBack(lock) => {
                let luck = chance(100);
                if luck != 0 {
                    world.locks.give_back(&lock.group, index);
                }
                let outcome = if luck < 2 { Err("no answer".into()) } else { Ok(()) };
                host.after(Event::GivenBack(outcome), now + ASK_S)
            }
            Action::Restart(version) => {
                figures.restarts += 1;
                let config = &host.config;
                let open = matches!(window::at(&config.windows, now), Maintenance::Open { .. });
                figures.outside_window += u64::from(config.reboot == Reboot::Window && !open);
                let lock = config.fleetlock.as_ref();
                figures.without_lock += u64::from(lock.is_some_and(|lock| !world.locks.holds(&lock.group, index)));
                let late = now.saturating_sub(policy::FRESH_S + LOOK_S);
                figures.into_withdrawn += u64::from(world.is_withdrawn(&version, late));
                host.boot(version);
                host.trial(world, now + BOOT_S);
                now + BOOT_S
            }
            Action::Tell(outcome) => {
                let lost = chance(50) == 0;
                if !lost {
                    world.hear(&outcome);
                }
                host.after(Event::Told(if lost { Err("no answer".into()) } else { Ok(()) }), now + ASK_S)
            }
        }
    }
}

impl Host {
    fn step(&mut self, event: Option<Event>, now: u64) -> Action {
        let boot_id = self.boots.to_string();
        let facts = Facts {
            running: &self.running,
            on_trial: self.on_trial,
            boot_id: &boot_id,
            next_boot: &self.next_boot,
            writing: self.writing.as_ref(),
            bad: &self.bad,
        };
        let memory = std::mem::take(&mut self.memory);
        let (memory, action) = policy::step(&self.config, &facts, memory, event, now);
        self.memory = memory;
        action
    }

    fn after(&mut self, event: Event, at: u64) -> u64 {
        self.pending = Some(event);
        at
    }

    /// What isn't durable is gone.
    fn boot(&mut self, version: Version) {
        self.boots += 1;
        self.on_trial = version != self.good;
        (self.running, self.next_boot) = (version.clone(), version);
        self.pending = None;
        let record: Record = self.memory.record.clone();
        self.memory = Memory::new(self.id.clone(), record);
    }

    /// How the trial will end, if there is one.
    fn trial(&mut self, world: &World, from: u64) {
        let good = !world.fails_on(&self.running, &self.id);
        let lasts_s = if good { TRIAL_S } else { FAILED_TRIALS_S };
        self.trial_ends = self.on_trial.then_some((from + lasts_s, good));
    }
}

/// What all hosts of a kind have in common.
pub type Settings = std::sync::Arc<Automatic>;
