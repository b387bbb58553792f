use super::super::fleetlock::Leave;
use super::super::look::Look;
use super::super::record::Record;
use super::*;
use keel_spec::config::{ALL_DAYS, Window};
use keel_spec::zone::Zone;

/// 1 January 2027, 00:00 UTC: a Friday.
const START: u64 = 1_798_761_600;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

/// A host whose world does what it is told.
struct Host {
    config: Automatic,
    memory: Memory,
    running: Version,
    next_boot: Version,
    writing: Option<Version>,
    on_trial: bool,
    boot: u32,
    bad: Vec<BadRelease>,
    now: u64,
}

impl Host {
    fn new(config: Automatic) -> Self {
        Self {
            config,
            memory: Memory::new("host".into(), Record::default()),
            running: version("1.0.0"),
            next_boot: version("1.0.0"),
            writing: None,
            on_trial: false,
            boot: 1,
            bad: Vec::new(),
            now: START,
        }
    }

    fn step(&mut self, event: Option<Event>) -> Action {
        let boot_id = self.boot.to_string();
        let facts = Facts {
            running: &self.running,
            on_trial: self.on_trial,
            boot_id: &boot_id,
            next_boot: &self.next_boot,
            writing: self.writing.as_ref(),
            bad: &self.bad,
        };
        let memory = std::mem::take(&mut self.memory);
        let (memory, action) = step(&self.config, &facts, memory, event, self.now);
        self.memory = memory;
        action
    }

    /// Asks until something is to be done, for so many waits.
    fn act(&mut self, waits: usize) -> Action {
        for _ in 0..waits {
            match self.step(None) {
                Action::Wait { until_unix_s, .. } => self.now = until_unix_s,
                action => return action,
            }
        }
        panic!("nothing is done: {:?}", self.step(None))
    }

    fn why(&mut self) -> Why {
        match self.step(None) {
            Action::Wait { why, until_unix_s } => {
                assert!(until_unix_s > self.now && until_unix_s <= self.now + LONGEST_WAIT_S);
                why
            }
            action => panic!("it doesn't wait: {action:?}"),
        }
    }

    /// Gives what a look finds, when one is next.
    fn look(&mut self, candidate: Option<(&str, Option<u64>)>) {
        assert_eq!(self.act(3), Action::Look);
        let candidate = candidate.map(|(text, wave_unix_s)| Candidate { version: version(text), wave_unix_s });
        self.note(Event::Looked(Ok(Look { candidate, recalled: Vec::new() })));
    }

    fn note(&mut self, event: Event) {
        self.memory.note(&self.config, event, self.now);
    }

    fn stage(&mut self, text: &str) {
        assert_eq!(self.act(1), Action::Stage(version(text)));
        self.writing = Some(version(text));
        self.note(Event::Staged(version(text), Ok(())));
    }

    fn install(&mut self, text: &str) {
        assert_eq!(self.act(1), Action::Install(version(text)));
        (self.next_boot, self.writing) = (version(text), None);
        self.note(Event::Installed(version(text), Ok(())));
    }

    fn boot(&mut self, text: &str, on_trial: bool) {
        self.boot += 1;
        (self.running, self.next_boot, self.on_trial) = (version(text), version(text), on_trial);
        self.memory = Memory::new("host".into(), self.memory.record.clone());
        self.now += 60;
    }
}

fn config(reboot: Reboot) -> Automatic {
    let window = Window { days: ALL_DAYS, start_min: 120, length_min: 60, zone: Zone::utc() };
    Automatic { auto: Auto::Install, reboot, windows: vec![window], ..Automatic::default() }
}

fn locked(reboot: Reboot) -> Automatic {
    Automatic { fleetlock: Some(lock()), ..config(reboot) }
}

fn lock() -> FleetLock {
    FleetLock { url: "http://lock".into(), group: "web".into() }
}

#[test]
fn what_the_operator_does_not_want_is_not_done() {
    let mut host = Host::new(Automatic { auto: Auto::Off, ..config(Reboot::Now) });
    assert_eq!(host.why(), Why::Off);
    host.config.auto = Auto::Check;
    host.look(Some(("2.0.0", Some(0))));
    assert_eq!(host.why(), Why::Found(version("2.0.0")));
    host.config.auto = Auto::Download;
    host.stage("2.0.0");
    assert_eq!(host.why(), Why::Staged(version("2.0.0")));
    host.config = config(Reboot::OnDemand);
    host.install("2.0.0");
    assert_eq!(host.why(), Why::OnDemand(version("2.0.0")));
    host.note(Event::Paused);
    assert_eq!(host.why(), Why::Paused);
    host.note(Event::Resumed);
    assert_eq!(host.step(None), Action::Look);
}

#[test]
fn a_release_waits_for_its_wave_and_is_not_written_before() {
    let mut host = Host::new(config(Reboot::Now));
    let wave = START + 5 * 3600;
    host.look(Some(("2.0.0", Some(wave))));
    assert_eq!(host.why(), Why::Wave(version("2.0.0"), Some(wave)));
    while host.now < wave {
        match host.step(None) {
            Action::Wait { until_unix_s, .. } => host.now = until_unix_s,
            _ => host.look(Some(("2.0.0", Some(wave)))),
        }
    }
    host.look(Some(("2.0.0", Some(wave))));
    host.stage("2.0.0");
    host.now += FRESH_S + 1;
    host.look(Some(("2.0.0", None)));
    assert_eq!(host.why(), Why::Wave(version("2.0.0"), None), "the publisher made the waves smaller");
}

#[test]
fn the_restart_waits_for_the_window_with_the_release_written_and_not_offered() {
    let mut host = Host::new(config(Reboot::Window));
    host.look(Some(("2.0.0", Some(0))));
    host.stage("2.0.0");
    assert_eq!(host.why(), Why::Window(version("2.0.0"), Some(START + 2 * 3600)));
    host.now = START + 2 * 3600;
    host.look(Some(("2.0.0", Some(0))));
    host.install("2.0.0");
    assert_eq!(host.step(None), Action::Restart(version("2.0.0")));
    assert_eq!(host.why(), Why::Restarting(version("2.0.0")));
    host.boot("2.0.0", true);
    assert_eq!(host.why(), Why::Trial);
    host.on_trial = false;
    host.look(None);
    assert_eq!((host.why(), &host.memory.record.restart), (Why::NothingNewer, &None));
}

#[test]
fn a_lock_that_comes_after_the_window_closed_is_given_back() {
    let mut host = Host::new(locked(Reboot::Window));
    host.now = START + 3 * 3600 - 30;
    host.look(Some(("2.0.0", Some(0))));
    host.now = START + 3 * 3600 - 30;
    host.memory.looked_unix_s = host.now;
    host.stage("2.0.0");
    assert_eq!(host.step(None), Action::Ask(lock()));
    assert_eq!(host.memory.record.lock, Lock::Asked(lock()));
    host.now += 40;
    host.note(Event::Asked(Leave::Granted));
    assert_eq!(host.step(None), Action::GiveBack(lock()));
    host.note(Event::GivenBack(Ok(())));
    assert_eq!(host.why(), Why::Window(version("2.0.0"), Some(START + 26 * 3600)));
    assert_eq!(host.next_boot, version("1.0.0"), "not offered either");
}

#[test]
fn the_lock_is_held_through_the_trial_and_given_back_whichever_way_it_ends() {
    for (comes_up, bad) in [("2.0.0", false), ("1.0.0", true)] {
        let mut host = Host::new(locked(Reboot::Now));
        host.look(Some(("2.0.0", Some(0))));
        host.stage("2.0.0");
        assert_eq!(host.step(None), Action::Ask(lock()));
        host.note(Event::Asked(Leave::Granted));
        host.install("2.0.0");
        assert_eq!(host.step(None), Action::Restart(version("2.0.0")));
        host.boot("2.0.0", true);
        assert_eq!(host.why(), Why::Trial);
        if bad {
            host.boot(comes_up, false);
            host.bad = vec![BadRelease { version: version("2.0.0"), reason: "panic".into(), at_unix_s: host.now }];
        }
        host.on_trial = false;
        assert_eq!(host.step(None), Action::GiveBack(lock()), "{comes_up}");
        host.note(Event::GivenBack(Err("no answer".into())));
        assert!(host.memory.record.lock.is_held(&lock()));
        assert_eq!(host.act(30), Action::GiveBack(lock()));
        host.note(Event::GivenBack(Ok(())));
        assert_eq!(host.memory.record.lock, Lock::Free);
    }
}

#[test]
fn a_host_that_stopped_while_it_asked_gives_back_what_it_may_hold() {
    let mut host = Host::new(locked(Reboot::Window));
    host.memory.record.lock = Lock::Asked(lock());
    assert_eq!(host.step(None), Action::GiveBack(lock()));
    // In the window, with the release ready, it asks again instead.
    host.now = START + 2 * 3600 + 60;
    host.memory.record.lock = Lock::Asked(lock());
    host.memory.record.staged = Some(version("2.0.0"));
    host.writing = Some(version("2.0.0"));
    host.note(Event::Looked(Ok(Look {
        candidate: Some(Candidate { version: version("2.0.0"), wave_unix_s: Some(0) }),
        recalled: Vec::new(),
    })));
    assert_eq!(host.step(None), Action::Ask(lock()));
}

#[test]
fn a_lock_of_another_server_is_given_back_before_this_one_is_asked() {
    let other = FleetLock { url: "http://old".into(), group: "web".into() };
    let mut host = Host::new(locked(Reboot::Now));
    host.look(Some(("2.0.0", Some(0))));
    host.stage("2.0.0");
    host.memory.record.lock = Lock::Held { of: other.clone(), since_unix_s: START };
    assert_eq!(host.step(None), Action::GiveBack(other.clone()));
    host.note(Event::GivenBack(Err("gone".into())));
    assert_eq!(host.why(), Why::Lock(version("2.0.0")));
    assert_eq!(host.memory.record.lock.place(), Some(&other), "it isn't forgotten");
}

#[test]
fn a_release_that_is_withdrawn_is_neither_offered_nor_restarted_into() {
    let mut host = Host::new(config(Reboot::Window));
    host.look(Some(("2.0.0", Some(0))));
    host.stage("2.0.0");
    host.now = START + 2 * 3600;
    host.look(None);
    assert_eq!(host.why(), Why::NothingNewer);

    let mut host = Host::new(config(Reboot::OnDemand));
    host.look(Some(("2.0.0", Some(0))));
    host.install("2.0.0");
    host.now += 2 * 3600;
    assert_eq!(host.step(None), Action::Look);
    let recalled = vec![(version("2.0.0"), "it eats disks".to_owned())];
    host.note(Event::Looked(Ok(Look { candidate: None, recalled })));
    assert_eq!(host.step(None), Action::TakeBack(version("2.0.0"), "it eats disks".into()));
    host.next_boot = version("1.0.0");
    host.note(Event::TakenBack(version("2.0.0"), Ok(())));
    assert!(!matches!(host.step(None), Action::Install(_) | Action::Restart(_) | Action::TakeBack(..)));
}

#[test]
fn a_host_that_does_nothing_by_itself_still_heeds_that_what_boots_next_is_withdrawn() {
    for off in [true, false] {
        let mut host = Host::new(config(Reboot::Window));
        match off {
            true => host.config.auto = Auto::Off,
            false => host.note(Event::Paused),
        }
        let stopped = if off { Why::Off } else { Why::Paused };
        assert_eq!(host.why(), stopped);
        host.now += LONGEST_WAIT_S;
        assert_eq!(host.why(), stopped, "nothing is about to boot: nobody is asked");
        // An operator installs a release.
        host.next_boot = version("2.0.0");
        host.look(Some(("3.0.0", Some(0))));
        assert_eq!(host.why(), stopped, "it isn't taken back for any window, and nothing newer is installed");
        assert_eq!(host.act(2), Action::Look);
        let recalled = vec![(version("2.0.0"), "it eats disks".to_owned())];
        host.note(Event::Looked(Ok(Look { candidate: None, recalled })));
        assert_eq!(host.step(None), Action::TakeBack(version("2.0.0"), "it eats disks".into()));
        host.next_boot = version("1.0.0");
        host.note(Event::TakenBack(version("2.0.0"), Ok(())));
        assert_eq!(host.why(), stopped);
    }
}

#[test]
fn a_release_is_no_longer_offered_once_its_window_has_closed() {
    let mut host = Host::new(config(Reboot::Window));
    let closes = START + 3 * 3600;
    host.now = closes - 30;
    host.look_now("2.0.0");
    host.stage("2.0.0");
    assert_eq!(host.act(1), Action::Install(version("2.0.0")));
    assert_eq!(host.memory.record.offered, Some(version("2.0.0")), "it is known before it is done");
    (host.next_boot, host.writing) = (version("2.0.0"), None);
    // Whether the updater hears of it, or is started again after a loss of power.
    for heard in [true, false] {
        let mut host = clone(&host);
        host.now = closes - 10;
        match heard {
            true => host.note(Event::Installed(version("2.0.0"), Err("the metadata isn't fresh".into()))),
            false => host.memory = Memory::new("host".into(), host.memory.record),
        }
        if let Action::Wait { until_unix_s, .. } = host.step(None) {
            assert!(until_unix_s <= closes, "it sleeps over the window's end");
        }
        host.now = closes;
        host.note(Event::Paused);
        host.memory.working = Default::default();
        let Action::TakeBack(taken, why) = host.step(None) else { panic!("{heard}: it stays offered") };
        assert!(taken == version("2.0.0") && why.contains("window"), "{why}");
        (host.next_boot, host.writing) = (version("1.0.0"), Some(version("2.0.0")));
        host.note(Event::TakenBack(version("2.0.0"), Ok(())));
        host.note(Event::Resumed);
        host.look(Some(("2.0.0", Some(0))));
        let opens = Some(START + 26 * 3600);
        assert_eq!(host.why(), Why::Window(version("2.0.0"), opens), "it is written already");
    }
}

fn clone(host: &Host) -> Host {
    let (memory, bad) = (host.memory.clone(), host.bad.clone());
    let (running, next_boot, writing) = (host.running.clone(), host.next_boot.clone(), host.writing.clone());
    Host { config: host.config.clone(), memory, running, next_boot, writing, bad, ..*host }
}

#[test]
fn nothing_is_done_on_metadata_that_is_not_fresh() {
    let mut host = Host::new(locked(Reboot::Now));
    host.look(Some(("2.0.0", Some(0))));
    host.now += FRESH_S + 1;
    host.look(Some(("2.0.0", Some(0))));
    host.stage("2.0.0");
    assert_eq!(host.step(None), Action::Ask(lock()));
    host.now += FRESH_S + 1;
    host.note(Event::Asked(Leave::Granted));
    assert_eq!(host.step(None), Action::Look);
    host.note(Event::Looked(Err("no route".into())));
    assert_eq!(host.step(None), Action::GiveBack(lock()), "others aren't kept waiting for a repository");
    host.note(Event::GivenBack(Ok(())));
    assert_eq!(host.why(), Why::Stale(version("2.0.0")));
}

#[test]
fn failures_are_tried_again_ever_later_and_give_the_lock_back() {
    let mut host = Host::new(locked(Reboot::Now));
    host.look(Some(("2.0.0", Some(0))));
    host.stage("2.0.0");
    assert_eq!(host.step(None), Action::Ask(lock()));
    host.note(Event::Asked(Leave::Denied("taken".into())));
    assert_eq!((host.why(), &host.memory.record.lock), (Why::Lock(version("2.0.0")), &Lock::Free));
    let mut asked = 0;
    let began = host.now;
    while host.now < began + 3600 {
        match host.step(None) {
            Action::Wait { until_unix_s, .. } => host.now = until_unix_s,
            Action::Look => host.look(Some(("2.0.0", Some(0)))),
            Action::Ask(_) => {
                asked += 1;
                host.note(Event::Asked(Leave::Unknown("no answer".into())));
            }
            action => panic!("{action:?}"),
        }
    }
    assert!((8..20).contains(&asked), "{asked} questions in an hour");
    host.memory.record.lock = Lock::Held { of: lock(), since_unix_s: host.now };
    host.look_now("2.0.0");
    assert_eq!(host.step(None), Action::Install(version("2.0.0")));
    host.note(Event::Installed(version("2.0.0"), Err("the disk is failing".into())));
    assert_eq!(host.step(None), Action::GiveBack(lock()));
}

impl Host {
    fn look_now(&mut self, text: &str) {
        let candidate = Some(Candidate { version: version(text), wave_unix_s: Some(0) });
        self.note(Event::Looked(Ok(Look { candidate, recalled: Vec::new() })));
    }
}

#[test]
fn restarts_that_do_not_lead_to_a_release_are_given_up() {
    let mut host = Host::new(config(Reboot::Now));
    let mut restarts = 0;
    for _ in 0..400 {
        match host.step(None) {
            Action::Wait { until_unix_s, .. } => host.now = until_unix_s,
            Action::Look => host.look_now("2.0.0"),
            Action::Stage(release) => {
                host.writing = Some(release.clone());
                host.note(Event::Staged(release, Ok(())));
            }
            Action::Install(release) => {
                (host.next_boot, host.writing) = (release.clone(), None);
                host.note(Event::Installed(release, Ok(())));
            }
            // It comes up again as what it was, and nothing says that the release is bad.
            Action::Restart(_) => {
                restarts += 1;
                host.boot("1.0.0", false);
            }
            action => panic!("{action:?}"),
        }
    }
    if host.step(None) == Action::Look {
        host.look_now("2.0.0");
    }
    assert_eq!((restarts, host.why()), (MAX_RESTARTS, Why::GaveUp(version("2.0.0"))));
    host.look_now("2.0.1");
    assert_eq!(host.step(None), Action::Stage(version("2.0.1")));
}

#[test]
fn a_machine_that_does_not_go_down_is_noticed() {
    let mut host = Host::new(config(Reboot::Now));
    host.look(Some(("2.0.0", Some(0))));
    host.stage("2.0.0");
    host.install("2.0.0");
    assert_eq!(host.step(None), Action::Restart(version("2.0.0")));
    host.now += DOWN_WITHIN_S;
    assert!(matches!(host.why(), Why::Again(_)));
    assert!(host.memory.problem.as_deref().unwrap().contains("didn't go down"));
}

#[test]
fn outcomes_are_told_until_somebody_hears_and_only_those_of_this_record() {
    let mut host = Host::new(Automatic { report_url: Some("http://c".into()), ..config(Reboot::Now) });
    host.bad = vec![BadRelease { version: version("0.9.0"), reason: "old".into(), at_unix_s: 1 }];
    assert_eq!(host.act(3), Action::Look, "what was so before isn't told");
    host.boot("2.0.0", true);
    assert_eq!(host.why(), Why::Trial);
    host.on_trial = false;
    let Action::Tell(outcome) = host.step(None) else { panic!() };
    assert_eq!((outcome.good, &outcome.version, &outcome.other), (true, &version("2.0.0"), &version("1.0.0")));
    host.note(Event::Told(Err("503".into())));
    assert!(matches!(host.act(5), Action::Tell(_) | Action::Look));
    host.note(Event::Told(Ok(())));
    host.bad.insert(0, BadRelease { version: version("3.0.0"), reason: "panic".into(), at_unix_s: 9 });
    let Action::Tell(outcome) = host.step(None) else { panic!() };
    assert_eq!((outcome.good, &*outcome.reason, &outcome.other), (false, "panic", &version("2.0.0")));
    host.note(Event::Told(Ok(())));
    assert!(!matches!(host.step(None), Action::Tell(_)), "each is told once");
}

#[test]
fn an_operator_who_rolled_back_is_not_overruled_before_the_restart() {
    let mut host = Host::new(config(Reboot::Now));
    host.running = version("1.1.0");
    host.look(Some(("2.0.0", Some(0))));
    assert_eq!(host.why(), Why::RolledBack(version("1.0.0")));
}
