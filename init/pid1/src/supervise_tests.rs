//! The supervision state machine, under a fake clock.

use super::*;

const fn service(name: &'static str, after: &'static [&'static str], kind: Kind) -> Service {
    Service { name, argv: &[], after, late: false, required: true, kind, tty: None, drains: false, stop_ms: 5_000 }
}

static TABLE: [Service; 3] = [
    service("base", &[], Kind::Notifies),
    service("job", &[], Kind::OneShot),
    Service { drains: true, ..service("top", &["base", "job"], Kind::Notifies) },
];
const BASE: usize = 0;
const JOB: usize = 1;
const TOP: usize = 2;

/// Steps a machine and answers starts as the kernel would, with process IDs from 100.
struct Run {
    supervisor: Supervisor,
    now_ms: u64,
    next_pid: u32,
    seen: Vec<Action>,
}

impl Run {
    fn new() -> Self {
        Self::of(&TABLE)
    }

    fn of(table: &'static [Service]) -> Self {
        let mut run = Self { supervisor: Supervisor::new(table), now_ms: 1000, next_pid: 100, seen: Vec::new() };
        run.on(Event::Tick);
        run
    }

    /// All up.
    fn up() -> Self {
        let mut run = Self::new();
        run.on(Event::Ready { service: BASE });
        run.on(Event::Exited { service: JOB, code: 0 });
        run.on(Event::Ready { service: TOP });
        assert!(run.supervisor.is_up());
        run.seen.clear();
        run
    }

    fn on(&mut self, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let (next, actions) = step(self.supervisor.clone(), event, self.now_ms);
            self.supervisor = next;
            for action in actions {
                if let Action::Start(service) = action {
                    self.next_pid += 1;
                    events.push_back(Event::Started { service, pid: self.next_pid });
                }
                self.seen.push(action);
            }
        }
    }

    fn after(&mut self, ms: u64) {
        self.now_ms += ms;
        self.on(Event::Tick);
    }

    fn count(&self, action: &Action) -> usize {
        self.seen.iter().filter(|seen| *seen == action).count()
    }

    fn state(&self, service: usize) -> State {
        self.supervisor.slots[service].state
    }
}

static WITH_LATE: [Service; 3] = [
    service("base", &[], Kind::Notifies),
    Service { late: true, ..service("late", &[], Kind::Notifies) },
    Service { late: true, ..service("later", &["late"], Kind::Notifies) },
];

#[test]
fn late_services_wait_for_the_early_required_ones_but_not_for_each_other() {
    let mut run = Run::of(&WITH_LATE);
    assert_eq!((run.state(1), run.supervisor.next_tick_ms()), (State::Waiting, Some(LATE_MS)));
    run.on(Event::Ready { service: 0 });
    assert_eq!((run.count(&Action::Start(1)), run.count(&Action::Start(2))), (1, 0));
    assert!(!run.supervisor.is_up(), "late ones may be required, too");
    run.on(Event::Ready { service: 1 });
    assert_eq!(run.count(&Action::Start(2)), 1);
}

#[test]
fn late_services_start_in_the_end_on_a_host_whose_runtime_does_not() {
    let mut run = Run::of(&WITH_LATE);
    run.after(LATE_MS - run.now_ms - 1);
    assert_eq!(run.count(&Action::Start(1)), 0);
    run.after(1);
    assert_eq!((run.count(&Action::Start(1)), run.count(&Action::Start(2))), (1, 0));
    assert!(run.supervisor.next_tick_ms().is_none_or(|due_ms| due_ms > run.now_ms), "no tick that comes at once");
}

#[test]
fn a_service_starts_when_all_before_it_are_up() {
    let mut run = Run::new();
    assert_eq!((run.count(&Action::Start(BASE)), run.count(&Action::Start(JOB))), (1, 1));
    run.on(Event::Ready { service: BASE });
    assert_eq!(run.state(TOP), State::Waiting);
    run.on(Event::Exited { service: JOB, code: 0 });
    assert_eq!(run.state(JOB), State::Finished);
    assert_eq!(run.count(&Action::Start(TOP)), 1);
    assert!(!run.supervisor.is_up());
}

#[test]
fn pauses_double_up_to_their_limit_and_shrink_again_after_a_stable_time() {
    let mut run = Run::up();
    let mut pauses = Vec::new();
    for _ in 0..12 {
        run.on(Event::Exited { service: BASE, code: 1 });
        let State::Backoff { until_ms } = run.state(BASE) else { panic!("{:?}", run.state(BASE)) };
        pauses.push(until_ms - run.now_ms);
        run.after(until_ms - run.now_ms);
        assert!(matches!(run.state(BASE), State::Starting { pid: Some(_), .. }));
    }
    assert_eq!(pauses[..4], [100, 200, 400, 800]);
    assert_eq!(pauses[11], 30_000);
    run.on(Event::Ready { service: BASE });
    run.after(STABLE_MS);
    run.on(Event::Exited { service: BASE, code: 137 });
    assert!(matches!(run.state(BASE), State::Starting { pid: Some(_), .. }), "at once");
    assert_eq!(run.supervisor.slots[BASE].view().restarts, 13);
    run.on(Event::Exited { service: BASE, code: 137 });
    assert_eq!(run.state(BASE), State::Backoff { until_ms: run.now_ms + 100 });
    assert_eq!(run.supervisor.slots[BASE].status, "was ended by signal 9");
}

#[test]
fn a_service_that_is_never_ready_is_killed_and_tried_again() {
    let mut run = Run::new();
    run.after(START_LIMIT_MS - 1);
    assert_eq!(run.count(&Action::Kill(BASE)), 0);
    run.after(1);
    assert_eq!(run.count(&Action::Kill(BASE)), 1);
    run.on(Event::Ready { service: BASE });
    assert!(matches!(run.state(BASE), State::Stopping { .. }), "ready too late changes nothing");
    run.on(Event::Exited { service: BASE, code: 137 });
    assert!(matches!(run.state(BASE), State::Backoff { .. }));
}

#[test]
fn what_an_ended_service_left_is_swept_before_it_starts_again() {
    let mut run = Run::up();
    run.on(Event::Exited { service: TOP, code: 0 });
    run.after(100);
    let at = |action| run.seen.iter().position(|seen| *seen == action).unwrap();
    assert!(at(Action::Sweep(TOP)) < at(Action::Start(TOP)));
}

#[test]
fn a_missing_terminal_ends_a_service_for_good() {
    let mut run = Run::new();
    let (next, _) = step(
        Supervisor::new(&TABLE),
        Event::StartFailed { service: BASE, why: "no terminal".into(), for_good: true },
        0,
    );
    run.supervisor = next;
    run.after(1_000_000);
    assert_eq!(run.state(BASE), State::Stopped);
}

#[test]
fn a_shutdown_drains_then_ends_in_reverse_order_then_finishes_once() {
    let mut run = Run::up();
    run.on(Event::Shutdown(Shutdown::Reboot));
    assert_eq!(run.count(&Action::Announce(Shutdown::Reboot)), 1);
    run.after(DRAIN_LIMIT_MS - 1);
    assert_eq!(run.count(&Action::Terminate(TOP)), 0);
    run.after(1);
    assert_eq!((run.count(&Action::Terminate(TOP)), run.count(&Action::Terminate(BASE))), (1, 0));
    run.on(Event::Exited { service: TOP, code: 143 });
    assert_eq!((run.state(TOP), run.count(&Action::Terminate(BASE))), (State::Stopped, 1));
    run.after(5_000);
    assert_eq!(run.count(&Action::Kill(BASE)), 1);
    run.on(Event::Exited { service: BASE, code: 137 });
    run.on(Event::Shutdown(Shutdown::Poweroff));
    run.after(1_000_000);
    assert_eq!(run.count(&Action::Finish(Shutdown::Reboot)), 1);
    assert_eq!(run.count(&Action::Finish(Shutdown::Poweroff)), 0);
}

#[test]
fn a_drained_runtime_ends_the_wait_at_once() {
    let mut run = Run::up();
    run.on(Event::Shutdown(Shutdown::Poweroff));
    run.on(Event::Exited { service: TOP, code: 0 });
    assert_eq!(run.state(TOP), State::Stopped);
    assert_eq!(run.count(&Action::Terminate(BASE)), 1);
}

#[test]
fn a_runtime_that_was_never_ready_has_nothing_to_drain() {
    let mut run = Run::new();
    run.on(Event::Ready { service: BASE });
    run.on(Event::Exited { service: JOB, code: 0 });
    assert!(matches!(run.state(TOP), State::Starting { .. }));
    run.on(Event::Shutdown(Shutdown::Reboot));
    assert_eq!(run.count(&Action::Terminate(TOP)), 1);
}

#[test]
fn a_process_that_cannot_be_killed_does_not_hold_a_shutdown() {
    let mut run = Run::up();
    run.on(Event::Shutdown(Shutdown::Reboot));
    for _ in 0..(SHUTDOWN_LIMIT_MS / 1000) {
        run.after(1000);
    }
    assert_eq!(run.count(&Action::Finish(Shutdown::Reboot)), 1);
}

#[test]
fn nothing_starts_in_a_shutdown() {
    let mut run = Run::new();
    run.on(Event::Exited { service: BASE, code: 1 });
    run.on(Event::Shutdown(Shutdown::Reboot));
    run.seen.clear();
    run.after(10_000);
    run.on(Event::Exited { service: JOB, code: 0 });
    assert_eq!(run.seen.iter().filter(|action| matches!(action, Action::Start(_))).count(), 0);
}

#[test]
fn a_start_that_races_with_a_shutdown_is_killed() {
    let (supervisor, _) = step(Supervisor::new(&TABLE), Event::Shutdown(Shutdown::Reboot), 0);
    let (supervisor, actions) = step(supervisor, Event::Started { service: BASE, pid: 7 }, 1);
    assert!(actions.contains(&Action::Kill(BASE)));
    assert_eq!(supervisor.service_of(7), Some(BASE));
}

#[test]
fn every_due_time_is_announced() {
    let mut run = Run::new();
    assert_eq!(run.supervisor.next_tick_ms(), Some(run.now_ms + START_LIMIT_MS));
    run.on(Event::Exited { service: BASE, code: 1 });
    assert_eq!(run.supervisor.next_tick_ms(), Some(run.now_ms + 100));
}
