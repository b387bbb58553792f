//! What is to be done about each service: a pure state machine.
//!
//! # States and wanted states
//!
//! Every service is wanted up from boot to shutdown, and wanted stopped from then on; nobody can start or stop one by
//! itself. So the wanted state isn't kept per service: it is the machine's [`Phase`]. A service's own [`State`] is what
//! is true of it now, and [`settle`] looks, after every event, for the one next step that brings the one closer to the
//! other. The steps:
//!
//! ```text
//!             dependencies up            says Ready, or Kind::Simple
//!   Waiting ------------------> Starting ---------------------------> Up
//!      ^                          |   |                               |
//!      | pause over               |   | not ready in time: SIGKILL    | process ended
//!      |                          |   v                               |
//!   Backoff <---------------------+-- Stopping                        |
//!      ^          process ended                                       |
//!      +--------------------------------------------------------------+
//!   Kind::OneShot ended with 0: Finished. In a shutdown, every ended process: Stopped.
//! ```
//!
//! A late service also waits for all required ones that aren't late, but for no longer than [`LATE_MS`]: what is to put
//! a host right (the updater, the console) must come up on one whose runtime doesn't.
//!
//! # Interruptions
//!
//! - A process may end at any time, for any reason, also between the kernel making it and this machine hearing of it:
//!   its exit is always delivered after [`Event::Started`], since both come from one thread in that order.
//! - `Ready` from a service that is already up, or is being stopped, changes nothing.
//! - A process that was sent SIGKILL is only waited for; there is nothing stronger. In a shutdown its wait is bounded
//!   by [`SHUTDOWN_LIMIT_MS`], and at the end the machine stops with it or without it.
//! - When a service ends, what it left in its cgroup is killed before it is started again ([`Action::Sweep`]): two
//!   generations never run at once.
//! - A dependency that goes down doesn't take down what came after it: services find each other again over their
//!   sockets. It only matters for the next start.
//!
//! # Shutdown
//!
//! First [`Phase::Draining`]: subscribers hear of it, and a service that drains (the runtime, with its containers) may
//! end by itself. Nothing is started any more. Then [`Phase::Ending`]: services are told to end (SIGTERM) as soon as
//! nothing that came after them is left, and are killed when their time is over. When all are gone, or at the limit,
//! [`Action::Finish`] comes, exactly once. A second shutdown request changes nothing: the first one is under way.

use keel_spec::control::{self, ServiceState, Shutdown};

use crate::services::{Kind, Service};

/// A service that isn't ready after this long is killed and started again.
pub const START_LIMIT_MS: u64 = 60_000;
/// A service that was up this long has recovered: it is started again at once, and the pauses begin anew after that.
pub const STABLE_MS: u64 = 10_000;
/// Late services start this long after boot at the latest.
pub const LATE_MS: u64 = 15_000;
/// First and longest pause before a service that didn't last is started again.
pub const BACKOFF_MS: (u64, u64) = (100, 30_000);
/// How long subscribers have before services are told to end.
pub const DRAIN_LIMIT_MS: u64 = 20_000;
/// After this long a shutdown goes on without those that haven't ended.
pub const SHUTDOWN_LIMIT_MS: u64 = 50_000;

/// Where a service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Something that it comes after isn't up.
    Waiting,
    /// Being started (no process yet), or not ready yet.
    Starting { pid: Option<u32>, deadline_ms: u64 },
    /// Runs and is ready.
    Up { pid: u32 },
    /// Did its one job.
    Finished,
    /// Ended; will be started again.
    Backoff { until_ms: u64 },
    /// Told to end; killed at `kill_at_ms`, or was already (`None`).
    Stopping { pid: u32, kill_at_ms: Option<u64> },
    /// Ended and stays so.
    Stopped,
}

/// What is wanted of all services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All up.
    Running,
    /// Ended by themselves, where they drain.
    Draining { how: Shutdown, until_ms: u64, limit_ms: u64 },
    /// All stopped.
    Ending { how: Shutdown, limit_ms: u64 },
    /// All are; nothing more happens.
    Over { how: Shutdown },
}

/// One service and what is known of it.
#[derive(Clone, Debug)]
pub struct Slot {
    /// From the table.
    pub service: &'static Service,
    /// Where it is.
    pub state: State,
    /// When it got there.
    pub since_ms: u64,
    /// Failures in a row.
    failures: u32,
    /// Starts after the first.
    restarts: u32,
    /// Whether it was started at all.
    started: bool,
    /// Whether it has been ready at all: before that it has nothing that would have to be drained.
    worked: bool,
    /// What it last said, or how it last ended.
    pub status: String,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time went by.
    Tick,
    /// [`Action::Start`] succeeded.
    Started { service: usize, pid: u32 },
    /// [`Action::Start`] failed; `for_good`: trying again is of no use (no such terminal).
    StartFailed { service: usize, why: String, for_good: bool },
    /// A service said that it is ready.
    Ready { service: usize },
    /// A service's process ended, with this exit code (128 + signal).
    Exited { service: usize, code: i32 },
    /// The machine is to stop.
    Shutdown(Shutdown),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the process; answer with [`Event::Started`] or [`Event::StartFailed`] before any other event.
    Start(usize),
    /// Ask the process to end.
    Terminate(usize),
    /// Kill everything in the service's cgroup.
    Kill(usize),
    /// Kill what the ended process left in its cgroup.
    Sweep(usize),
    /// Tell subscribers.
    Announce(Shutdown),
    /// All services are stopped: stop the machine.
    Finish(Shutdown),
    /// Tell people.
    Say(String),
    /// Tell people of something that is a stage of the boot until all required services are up.
    Stage(String),
}

/// All services.
#[derive(Clone, Debug)]
pub struct Supervisor {
    /// In the order of the table.
    pub slots: Vec<Slot>,
    /// What is wanted of them.
    pub phase: Phase,
    /// Whether late services' time has come.
    late_due: bool,
}

impl Supervisor {
    /// All waiting.
    pub fn new(services: &'static [Service]) -> Self {
        let slot = |service| Slot {
            service,
            state: State::Waiting,
            since_ms: 0,
            failures: 0,
            restarts: 0,
            started: false,
            worked: false,
            status: String::new(),
        };
        Self {
            slots: services.iter().map(slot).collect(),
            phase: Phase::Running,
            late_due: !services.iter().any(|service| service.late),
        }
    }

    /// When [`Event::Tick`] is due, if at all.
    pub fn next_tick_ms(&self) -> Option<u64> {
        let slots = self.slots.iter().filter_map(|slot| match slot.state {
            State::Starting { deadline_ms, .. } => Some(deadline_ms),
            State::Backoff { until_ms } => Some(until_ms),
            State::Stopping { kill_at_ms, .. } => kill_at_ms,
            State::Waiting | State::Up { .. } | State::Finished | State::Stopped => None,
        });
        let phase = match self.phase {
            Phase::Draining { until_ms, .. } => Some(until_ms),
            Phase::Ending { limit_ms, .. } => Some(limit_ms),
            Phase::Running | Phase::Over { .. } => None,
        };
        let late = (!self.late_due).then_some(LATE_MS);
        slots.chain(phase).chain(late).min()
    }

    /// The service that a process is the main process of.
    pub fn service_of(&self, pid: u32) -> Option<usize> {
        self.slots.iter().position(|slot| slot.pid() == Some(pid))
    }

    /// The shutdown that is under way.
    pub fn shutting_down(&self) -> Option<Shutdown> {
        match self.phase {
            Phase::Running => None,
            Phase::Draining { how, .. } | Phase::Ending { how, .. } | Phase::Over { how } => Some(how),
        }
    }

    /// Whether every required service is up.
    pub fn is_up(&self) -> bool {
        self.slots.iter().all(|slot| !slot.service.required || slot.is_ready())
    }

    /// Whether every required service is up that others may have to wait for.
    fn is_early_up(&self) -> bool {
        let mut early = self.slots.iter().filter(|slot| slot.service.required && !slot.service.late);
        early.all(Slot::is_ready)
    }

    fn is_ready(&self, name: &str) -> bool {
        self.slots.iter().any(|slot| slot.service.name == name && slot.is_ready())
    }

    /// Whether something that came after this service still runs.
    fn is_needed(&self, name: &str) -> bool {
        self.slots.iter().any(|slot| slot.pid().is_some() && slot.service.after.contains(&name))
    }
}

impl Slot {
    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        match self.state {
            State::Starting { pid, .. } => pid,
            State::Up { pid } | State::Stopping { pid, .. } => Some(pid),
            State::Waiting | State::Finished | State::Backoff { .. } | State::Stopped => None,
        }
    }

    /// As the control socket tells it.
    pub fn view(&self) -> control::Service {
        control::Service {
            name: self.service.name.to_owned(),
            state: match self.state {
                State::Waiting => ServiceState::Waiting,
                State::Starting { .. } => ServiceState::Starting,
                State::Up { .. } | State::Finished => ServiceState::Up,
                State::Backoff { .. } => ServiceState::Backoff,
                State::Stopping { .. } => ServiceState::Stopping,
                State::Stopped => ServiceState::Stopped,
            },
            required: self.service.required,
            pid: self.pid(),
            restarts: self.restarts,
            status: self.status.clone(),
            since_ms: self.since_ms,
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.state, State::Up { .. } | State::Finished)
    }

    fn is_draining(&self) -> bool {
        self.service.drains && self.worked && self.pid().is_some()
    }

    fn enter(&mut self, state: State, now_ms: u64) {
        self.worked |= matches!(state, State::Up { .. });
        self.state = state;
        self.since_ms = now_ms;
    }

    /// It ended without having been wanted to: at once again after it had worked for long, else a pause, longer each time.
    fn fail(&mut self, why: String, now_ms: u64, actions: &mut Vec<Action>) {
        let was_stable = matches!(self.state, State::Up { .. }) && now_ms.saturating_sub(self.since_ms) >= STABLE_MS;
        let pause_ms = match was_stable {
            true => 0,
            false => BACKOFF_MS.0.saturating_mul(1 << self.failures.min(16)).min(BACKOFF_MS.1),
        };
        self.failures = if was_stable { 0 } else { self.failures.saturating_add(1) };
        let again = if was_stable { "again at once".to_owned() } else { format!("again in {pause_ms} ms") };
        actions.push(Action::Say(format!("service {} {why}; {again}", self.service.name)));
        self.status = why;
        self.enter(State::Backoff { until_ms: now_ms.saturating_add(pause_ms) }, now_ms);
    }
}

/// One step: the event is taken in, then everything that has become due is found.
pub fn step(mut supervisor: Supervisor, event: Event, now_ms: u64) -> (Supervisor, Vec<Action>) {
    let mut actions = Vec::new();
    let stopping = supervisor.phase != Phase::Running;
    match event {
        Event::Tick => {}
        Event::Shutdown(how) => shut_down(&mut supervisor, how, now_ms, &mut actions),
        Event::Started { service, pid } => {
            if let Some(slot) = supervisor.slots.get_mut(service) {
                started(slot, pid, now_ms);
            }
        }
        Event::StartFailed { service, why, for_good } => {
            if let Some(slot) = supervisor.slots.get_mut(service) {
                if for_good || stopping {
                    slot.status = why;
                    slot.enter(State::Stopped, now_ms);
                } else {
                    slot.fail(why, now_ms, &mut actions);
                }
            }
        }
        Event::Ready { service } => {
            if let Some(slot) = supervisor.slots.get_mut(service)
                && let State::Starting { pid: Some(pid), .. } = slot.state
            {
                actions.push(Action::Stage(format!("service {} is up", slot.service.name)));
                slot.enter(State::Up { pid }, now_ms);
            }
        }
        Event::Exited { service, code } => {
            if let Some(slot) = supervisor.slots.get_mut(service) {
                actions.push(Action::Sweep(service));
                exited(slot, code, stopping, now_ms, &mut actions);
            }
        }
    }
    settle(&mut supervisor, now_ms, &mut actions);
    (supervisor, actions)
}

fn started(slot: &mut Slot, pid: u32, now_ms: u64) {
    if slot.started {
        slot.restarts = slot.restarts.saturating_add(1);
    }
    slot.started = true;
    match (slot.service.kind, slot.state) {
        (Kind::Simple, State::Starting { .. }) => slot.enter(State::Up { pid }, now_ms),
        (Kind::Notifies | Kind::OneShot, State::Starting { deadline_ms, .. }) => {
            slot.state = State::Starting { pid: Some(pid), deadline_ms };
        }
        // A shutdown came between: it has to go at once.
        _ => slot.enter(State::Stopping { pid, kill_at_ms: Some(now_ms) }, now_ms),
    }
}

fn exited(slot: &mut Slot, code: i32, stopping: bool, now_ms: u64, actions: &mut Vec<Action>) {
    let why = match code {
        129..=192 => format!("was ended by signal {}", code - 128),
        _ => format!("ended with code {code}"),
    };
    match (slot.service.kind, slot.state) {
        (Kind::OneShot, State::Starting { .. }) if code == 0 => {
            slot.status = "done".to_owned();
            slot.enter(State::Finished, now_ms);
        }
        _ if stopping => {
            slot.status = why;
            slot.enter(State::Stopped, now_ms);
        }
        _ => slot.fail(why, now_ms, actions),
    }
}

fn shut_down(supervisor: &mut Supervisor, how: Shutdown, now_ms: u64, actions: &mut Vec<Action>) {
    if supervisor.phase != Phase::Running {
        return;
    }
    supervisor.phase = Phase::Draining {
        how,
        until_ms: now_ms.saturating_add(DRAIN_LIMIT_MS),
        limit_ms: now_ms.saturating_add(SHUTDOWN_LIMIT_MS),
    };
    actions.push(Action::Announce(how));
}

/// Finds what has become due: by the time, by another service's state, or by the phase.
fn settle(supervisor: &mut Supervisor, now_ms: u64, actions: &mut Vec<Action>) {
    if let Phase::Draining { how, until_ms, limit_ms } = supervisor.phase {
        let drained = !supervisor.slots.iter().any(Slot::is_draining);
        if drained || now_ms >= until_ms {
            supervisor.phase = Phase::Ending { how, limit_ms };
        }
    }
    supervisor.late_due |= now_ms >= LATE_MS || supervisor.is_early_up();
    for index in 0..supervisor.slots.len() {
        settle_one(supervisor, index, now_ms, actions);
    }
    if let Phase::Ending { how, limit_ms } = supervisor.phase
        && (now_ms >= limit_ms || supervisor.slots.iter().all(|slot| slot.pid().is_none()))
    {
        supervisor.phase = Phase::Over { how };
        actions.push(Action::Finish(how));
    }
}

fn settle_one(supervisor: &mut Supervisor, index: usize, now_ms: u64, actions: &mut Vec<Action>) {
    let Some(slot) = supervisor.slots.get(index) else { return };
    let service = slot.service;
    let next = match (slot.state, supervisor.phase) {
        (State::Stopping { pid, kill_at_ms: Some(at_ms) }, _) if now_ms >= at_ms => {
            actions.push(Action::Kill(index));
            State::Stopping { pid, kill_at_ms: None }
        }
        (State::Waiting | State::Backoff { .. }, Phase::Draining { .. } | Phase::Ending { .. }) => State::Stopped,
        (State::Backoff { until_ms }, Phase::Running) if now_ms < until_ms => return,
        (State::Waiting | State::Backoff { .. }, Phase::Running) => {
            let its_turn = supervisor.late_due || !service.late;
            if its_turn && service.after.iter().all(|name| supervisor.is_ready(name)) {
                actions.push(Action::Start(index));
                State::Starting { pid: None, deadline_ms: now_ms.saturating_add(START_LIMIT_MS) }
            } else {
                State::Waiting
            }
        }
        (State::Starting { pid: Some(pid), deadline_ms }, Phase::Running) if now_ms >= deadline_ms => {
            let limit_s = START_LIMIT_MS / 1000;
            actions.push(Action::Say(format!("service {} was not ready within {limit_s} s", service.name)));
            actions.push(Action::Kill(index));
            State::Stopping { pid, kill_at_ms: None }
        }
        (State::Starting { pid: Some(pid), .. } | State::Up { pid }, Phase::Ending { .. })
            if !supervisor.is_needed(service.name) =>
        {
            actions.push(Action::Terminate(index));
            State::Stopping { pid, kill_at_ms: Some(now_ms.saturating_add(service.stop_ms)) }
        }
        _ => return,
    };
    if let Some(slot) = supervisor.slots.get_mut(index)
        && slot.state != next
    {
        slot.enter(next, now_ms);
    }
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
