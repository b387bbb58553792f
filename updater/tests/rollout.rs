//! The driver against a real lock server and a real collector on loopback, which fail and hang, and with hosts that stop
//! anywhere.

#[path = "support/lock_server.rs"]
mod lock_server;

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use keel_spec::config::{ALL_DAYS, Auto, FleetLock, Reboot, Settings, Window};
use keel_spec::release::Version;
use keel_spec::zone::Zone;
use keel_updater::failure::Result;
use keel_updater::rollout::driver::{Driver, Seen, Trouble, World};
use keel_updater::rollout::fleetlock::{self, Leave};
use keel_updater::rollout::http;
use keel_updater::rollout::look::{Candidate, Look};
use keel_updater::rollout::policy::Action;
use keel_updater::rollout::wave::spread;
use lock_server::{Fault, LockServer};

/// 1 January 2027, 02:00 UTC.
const OPENS: u64 = 1_798_768_800;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("keel-updater-rollout-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn lock(server: &LockServer) -> FleetLock {
    FleetLock { url: server.url.clone(), group: "web".into() }
}

fn settings(server: &LockServer) -> Settings {
    let mut settings = Settings::default();
    settings.update.automatic.auto = Auto::Install;
    settings.update.automatic.reboot = Reboot::Window;
    settings.update.automatic.windows =
        vec![Window { days: ALL_DAYS, start_min: 120, length_min: 60, zone: Zone::utc() }];
    settings.update.automatic.fleetlock = Some(lock(server));
    settings.update.automatic.report_url = Some(format!("{}/outcomes", server.url));
    settings
}

/// A host whose disk does what it is told, with a clock that only waits move.
struct Host<'a> {
    server: &'a LockServer,
    id: RefCell<String>,
    now: Cell<u64>,
    boot: Cell<u32>,
    running: RefCell<Version>,
    next_boot: RefCell<Version>,
    writing: RefCell<Option<Version>>,
    trial_ends: Cell<u64>,
    restarts: Cell<u32>,
}

impl<'a> Host<'a> {
    fn new(server: &'a LockServer) -> Self {
        Self {
            server,
            id: RefCell::default(),
            now: Cell::new(OPENS - 7200),
            boot: Cell::new(1),
            running: RefCell::new(version("1.0.0")),
            next_boot: RefCell::new(version("1.0.0")),
            writing: RefCell::new(None),
            trial_ends: Cell::new(0),
            restarts: Cell::new(0),
        }
    }

    /// Power fails, or the machine restarts.
    fn boots(&self) {
        let next = self.next_boot.borrow().clone();
        if *self.running.borrow() != next {
            self.trial_ends.set(self.now.get() + 60);
        }
        self.running.replace(next);
        self.boot.set(self.boot.get() + 1);
        self.now.set(self.now.get() + 30);
    }
}

impl World for Host<'_> {
    fn now_unix_s(&self) -> u64 {
        self.now.get()
    }

    fn see(&self) -> Result<Seen> {
        Ok(Seen {
            running: self.running.borrow().clone(),
            on_trial: self.trial_ends.get() > self.now.get(),
            boot_id: self.boot.get().to_string(),
            next_boot: self.next_boot.borrow().clone(),
            writing: self.writing.borrow().clone(),
            bad: Vec::new(),
        })
    }

    fn look(&self, host_id: &str) -> Result<Look, Trouble> {
        self.id.replace(host_id.into());
        let candidate = Candidate { version: version("2.0.0"), wave_unix_s: Some(0) };
        let newer = candidate.version > *self.running.borrow();
        Ok(Look { candidate: newer.then_some(candidate), recalled: Vec::new() })
    }

    fn stage(&self, version: &Version) -> Result<(), Trouble> {
        self.writing.replace(Some(version.clone()));
        Ok(())
    }

    fn install(&self, version: &Version) -> Result<(), Trouble> {
        self.writing.replace(None);
        self.next_boot.replace(version.clone());
        Ok(())
    }

    fn take_back(&self, _version: &Version) -> Result<(), Trouble> {
        self.next_boot.replace(self.running.borrow().clone());
        Ok(())
    }

    fn restart(&self, _reason: &str) -> Result<(), Trouble> {
        let into_window = self.now.get().saturating_sub(OPENS) % 86_400;
        assert!(self.now.get() >= OPENS && into_window < 3600, "a restart outside the window: {into_window} s into it");
        assert!(self.server.holds("web", &self.id.borrow()), "a restart without the lock");
        self.restarts.set(self.restarts.get() + 1);
        self.boots();
        Ok(())
    }
}

/// Where a host stops.
#[derive(Clone, Copy, PartialEq)]
enum Stops {
    /// Nowhere.
    Never,
    /// At random: after a decision, or after an act that nobody took note of; as a program, or as a machine.
    At(u64),
}

/// Runs a host until its release is good, all outcomes are told and the lock is free; how many stops there were.
fn run(name: &str, server: &LockServer, stops: Stops) -> u64 {
    let folder = folder(name);
    let (settings, host) = (settings(server), Host::new(server));
    let open = || Driver::open(&folder, &settings).unwrap();
    let (mut driver, mut event, mut stopped) = (open(), None, 0);
    for step in 0..3000 {
        let luck = match stops {
            Stops::At(seed) if stopped < 12 => spread(&seed.to_string(), step, 12),
            _ => u64::MAX,
        };
        let action = driver.decide(&host, event.take()).unwrap();
        let restarts = matches!(action, Action::Restart(_));
        if luck != 0 {
            event = driver.carry_out(&host, &action);
        }
        // A restart ends the program, too.
        if luck <= 1 || restarts && luck != 0 {
            stopped += 1;
            if spread("machine", step, 2) == 0 && !restarts {
                host.boots();
            }
            (driver, event) = (open(), None);
        }
        if let Action::Wait { until_unix_s, .. } = action {
            let status = driver.status(host.now.get());
            let done = *host.running.borrow() == version("2.0.0") && host.trial_ends.get() <= host.now.get();
            let free = status.lock.as_ref().is_none_or(|lock| lock.state == "free");
            if done && free && status.outcomes_waiting == 0 && luck > 1 && status.next.contains("look for") {
                assert_eq!(server.held(), 0, "{name}: the host thinks that it is free");
                std::fs::remove_dir_all(&folder).unwrap();
                return stopped;
            }
            host.now.set(until_unix_s.max(host.now.get() + 1));
        }
    }
    panic!("{name}: stuck: {:?} {:?}", driver.status(host.now.get()), server.held());
}

#[test]
fn a_host_takes_the_lock_restarts_in_its_window_gives_it_back_and_reports() {
    let server = LockServer::start();
    assert_eq!(run("plain", &server, Stops::Never), 1);
    let outcomes = server.outcomes();
    assert_eq!(outcomes.len(), 1);
    assert_eq!((&outcomes[0]["version"], &outcomes[0]["outcome"]), (&"2.0.0".into(), &"good".into()));
    // Neither waits for the other: one that fails once comes later.
    let paths = server.paths();
    assert_eq!(paths[0], "/v1/pre-reboot");
    let mut last = paths[1..].to_vec();
    last.sort_unstable();
    assert_eq!(last, ["/outcomes", "/v1/steady-state"]);
}

#[test]
fn a_host_that_stops_anywhere_never_restarts_without_the_lock_and_never_keeps_it() {
    let mut stops = 0;
    for seed in 0..40 {
        let server = LockServer::start();
        stops += run(&format!("stops-{seed}"), &server, Stops::At(seed));
    }
    assert!(stops > 100, "{stops} stops are too few to mean anything");
}

#[test]
fn a_server_that_fails_or_loses_answers_changes_nothing_in_the_end() {
    for (index, faults) in [
        vec![Fault::Status(500), Fault::Status(502)],
        vec![Fault::DoneButCut, Fault::DoneButCut],
        vec![Fault::Cut, Fault::DoneButCut, Fault::Status(429)],
        vec![Fault::None, Fault::DoneButCut, Fault::Status(500), Fault::Cut],
        vec![Fault::Garbage, Fault::Garbage],
    ]
    .into_iter()
    .enumerate()
    {
        let server = LockServer::start();
        server.fail(faults);
        run(&format!("faults-{index}"), &server, Stops::Never);
        let server = LockServer::start();
        server.fail(vec![Fault::DoneButCut; 3]);
        run(&format!("both-{index}"), &server, Stops::At(index as u64 + 100));
    }
}

#[test]
fn a_host_waits_while_another_of_its_group_holds_the_lock() {
    let server = LockServer::start();
    server.hold("web", "another-host");
    let (folder, settings, host) = (folder("taken"), settings(&server), Host::new(&server));
    let driver = Driver::open(&folder, &settings).unwrap();
    let mut event = None;
    let closes = OPENS + 3600;
    while host.now.get() < closes + 600 {
        let action = driver.decide(&host, event.take()).unwrap();
        event = driver.carry_out(&host, &action);
        if let Action::Wait { until_unix_s, .. } = action {
            host.now.set(until_unix_s);
        }
    }
    assert_eq!((host.restarts.get(), &*host.next_boot.borrow()), (0, &version("1.0.0")));
    assert!(driver.status(host.now.get()).next.contains("next window"));
    server.release("web");
    let before = host.restarts.get();
    for _ in 0..400 {
        let action = driver.decide(&host, event.take()).unwrap();
        event = driver.carry_out(&host, &action);
        match action {
            Action::Wait { until_unix_s, .. } => host.now.set(until_unix_s),
            Action::Restart(_) => break,
            _ => {}
        }
    }
    assert_eq!(host.restarts.get(), before + 1, "in the next night's window");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_server_that_hangs_or_trickles_holds_nobody_up_for_long() {
    let client = http::client_with(&Settings::default(), Duration::from_millis(300)).unwrap();
    for fault in [Fault::Hang, Fault::Trickle] {
        let server = LockServer::start();
        server.fail(vec![fault]);
        let began = Instant::now();
        let leave = fleetlock::take(&client, &lock(&server), "host");
        assert!(began.elapsed() < Duration::from_secs(5), "{fault:?} took {:?}", began.elapsed());
        match fault {
            Fault::Hang => assert!(matches!(leave, Leave::Unknown(_)), "{leave:?}"),
            _ => assert!(matches!(leave, Leave::Denied(_)), "{leave:?}"),
        }
    }
}

#[test]
fn what_the_server_says_is_told_without_its_control_characters() {
    let server = LockServer::start();
    server.hold("web", "another-host");
    let client = http::client_with(&Settings::default(), Duration::from_secs(5)).unwrap();
    let Leave::Denied(why) = fleetlock::take(&client, &lock(&server), "host") else { panic!() };
    assert!(why.contains("failed_lock") && why.contains("409") && !why.contains('\u{1b}'), "{why}");
}
