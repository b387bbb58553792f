//! The event loop: one thread, one epoll, all state.
//!
//! Everything that happens is turned into an event of [`crate::supervise`] or a request of [`crate::requests`], and
//! what they say is to be done is done here. Each turn does a bounded amount of work.

use std::collections::VecDeque;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use keel_spec::cmdline::value;
use keel_spec::control::{self, Exit, Reply, Request, Shutdown};
use keel_spec::paths;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, pidfd_send_signal, wait};

use crate::console::Console;
use crate::control::{Client, MAX_CLIENTS, Received, accept, open_listener, service_in};
use crate::farewell::{self, Asked};
use crate::logs::Log;
use crate::services::{FIRMWARE, SERVICES, Service};
use crate::spawn::{self, Failure, Process, Streams, spawn};
use crate::supervise::{Action, Event, Supervisor, step};
use crate::tables::{Adoptions, FdStore};
use crate::trial::Trial;
use crate::watchdog::Watchdog;
use crate::{clock, finish, requests, rotten};

/// What an epoll event is about; the index of a client or service is in the lower half.
const SIGNALS: u64 = 1 << 32;
const LISTENER: u64 = 2 << 32;
const CLIENT: u64 = 3 << 32;
const OUTPUT: u64 = 4 << 32;

/// Bounds of one turn: requests of one client, bytes of one service's output, new connections, reaped processes.
const REQUESTS_A_TURN: usize = 16;
const OUTPUT_A_TURN: usize = 4;
const CONNECTIONS_A_TURN: usize = 16;
const REAPED_A_TURN: usize = 4096;

/// The machine as PID 1 knows it.
pub struct Machine {
    /// Services and what is wanted of them.
    pub supervisor: Supervisor,
    /// Messages to people.
    pub console: Console,
    /// The hardware watchdog, if there is one.
    pub watchdog: Option<Watchdog>,
    /// The release's trial.
    pub trial: Trial,
    /// Why the state partition isn't mounted.
    pub state_problem: Option<String>,
    /// Whether the clock was behind the release's build time.
    pub clock_behind: bool,
    /// Who asked for the shutdown that is under way.
    pub asked: Option<Asked>,
    /// Kernel's random boot ID.
    pub boot_id: String,
    /// Descriptors kept for services.
    pub fds: FdStore,
    /// Containers' first processes.
    pub adoptions: Adoptions,
    /// Whether a container was started since boot.
    pub had_container: bool,
    own_log: Log,
    units: Vec<Unit>,
    clients: Vec<Option<Client>>,
    epoll: OwnedFd,
    signals: SignalFd,
    listener: OwnedFd,
    events: VecDeque<Event>,
    feed_at_ms: u64,
    was_up: bool,
}

/// What belongs to one service for the whole boot: its output outlives its processes.
struct Unit {
    service: &'static Service,
    cgroup: PathBuf,
    log: Log,
    output: OwnedFd,
    input: OwnedFd,
    process: Option<Process>,
}

impl Machine {
    /// Opens everything that the loop waits for.
    pub fn new(
        console: Console,
        watchdog: Option<Watchdog>,
        trial: Trial,
        state_problem: Option<String>,
    ) -> Result<Self, String> {
        let fails = |what: &'static str| move |error: std::io::Error| format!("cannot {what}: {error}");
        let mut mask = SigSet::empty();
        for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGPWR] {
            mask.add(signal);
        }
        mask.thread_block().map_err(|error| fails("block signals")(error.into()))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(|error| fails("open a signalfd")(error.into()))?;
        let listener = open_listener(Path::new(paths::CONTROL_SOCKET)).map_err(fails("open the control socket"))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| fails("open an epoll")(error.into()))?;
        let watch = |fd: &dyn AsFd, data| {
            epoll::add(&epoll, fd.as_fd(), EventData::new_u64(data), EventFlags::IN)
                .map_err(|error| fails("watch a descriptor")(error.into()))
        };
        watch(&signals, SIGNALS)?;
        watch(&listener, LISTENER)?;
        let mut units = Vec::new();
        for (index, service) in SERVICES.iter().enumerate() {
            let unit = Unit::new(service).map_err(fails("make a pipe"))?;
            watch(&unit.output, OUTPUT | index as u64)?;
            units.push(unit);
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
        Ok(Self {
            supervisor: Supervisor::new(&SERVICES),
            console,
            watchdog,
            trial,
            state_problem,
            clock_behind: false,
            asked: None,
            boot_id,
            fds: FdStore::default(),
            adoptions: Adoptions::default(),
            had_container: false,
            own_log: Log::default(),
            units,
            clients: (0..MAX_CLIENTS).map(|_| None).collect(),
            epoll,
            signals,
            listener,
            events: VecDeque::new(),
            feed_at_ms: 0,
            was_up: false,
        })
    }

    /// Runs the machine until it stops. Returns only if waiting for events is impossible.
    pub fn run(mut self) {
        self.say_trial();
        let mut ready = Vec::with_capacity(64);
        loop {
            self.tick();
            let timeout = self.timeout();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            for event in ready.drain(..) {
                let (data, flags) = (event.data.u64(), event.flags);
                let index = usize::try_from(data & 0xffff_ffff).unwrap_or(usize::MAX);
                match data & !0xffff_ffff {
                    SIGNALS => self.take_signals(),
                    LISTENER => self.take_connections(),
                    CLIENT => self.serve(index, flags),
                    OUTPUT => self.take_output(index),
                    _ => {}
                }
            }
        }
    }

    /// Takes an event in and does what it leads to.
    pub fn on(&mut self, event: Event) {
        self.events.push_back(event);
        while let Some(event) = self.events.pop_front() {
            let now_ms = clock::boot_ms();
            let supervisor = std::mem::replace(&mut self.supervisor, Supervisor::new(&[]));
            let (supervisor, actions) = step(supervisor, event, now_ms);
            self.supervisor = supervisor;
            for action in actions {
                self.act(action);
            }
        }
        if !self.was_up && self.supervisor.is_up() {
            self.was_up = true;
            self.console.stage("all required services are up");
            // Once more, where the record of a later panic begins.
            let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
            rotten::name_root(value(&cmdline, "roothash").unwrap_or("unknown"));
        }
    }

    /// Shows a line on the console and keeps it in PID 1's own log.
    pub fn say(&mut self, text: &str) {
        self.console.say(text);
    }

    /// All logs by name; PID 1's own is `init`.
    pub fn logs(&self) -> impl Iterator<Item = (&'static str, &Log)> {
        let units = self.units.iter().map(|unit| (unit.service.name, &unit.log));
        units.chain([("init", &self.own_log)])
    }

    /// Begins a shutdown.
    pub fn shut_down(&mut self, how: Shutdown, asked: Asked) {
        if self.supervisor.shutting_down().is_none() {
            self.say(&format!("stopping for a {}: {}", name_of(how), asked.reason));
            self.asked = Some(asked);
        }
        self.on(Event::Shutdown(how));
    }

    /// Sends an event to every subscriber; drops those that don't keep up.
    pub fn tell(&mut self, event: &control::Event) {
        let reply = Reply::Event(event.clone());
        for index in 0..self.clients.len() {
            let kept = match self.clients.get_mut(index).and_then(Option::as_mut) {
                Some(client) if client.subscribed => client.queue(&reply, Vec::new()) && client.flush(),
                _ => continue,
            };
            self.keep(index, kept);
        }
    }

    /// What is due by time, whatever else happens.
    fn tick(&mut self) {
        let now_ms = clock::boot_ms();
        if let Some(watchdog) = &self.watchdog
            && now_ms >= self.feed_at_ms
        {
            watchdog.feed();
            self.feed_at_ms = now_ms.saturating_add(watchdog.feed_every_ms);
        }
        if self.trial.has_failed(now_ms) {
            self.trial = self.trial.passed();
            let asked = Asked::by_init("the release on trial was not declared good in time");
            self.shut_down(Shutdown::Reboot, Asked { trial_expired: true, ..asked });
        }
        self.on(Event::Tick);
        self.keep_own_lines();
    }

    fn keep_own_lines(&mut self) {
        for line in std::mem::take(&mut self.console.unlogged) {
            self.own_log.add_line(&line);
        }
    }

    /// All services have ended: what they said last is taken in, and left for the next boot.
    fn finish(&mut self, how: Shutdown) {
        self.keep_own_lines();
        (0..self.units.len()).for_each(|index| self.take_output(index));
        let words = farewell::words(self, how);
        finish::finish(how, &mut self.console, self.watchdog.as_ref(), &words);
    }

    fn timeout(&self) -> Timespec {
        let feed = self.watchdog.as_ref().map(|_| self.feed_at_ms);
        let due = [feed, self.trial.due_ms(), self.supervisor.next_tick_ms()].into_iter().flatten().min();
        // An hour: nothing is due, and a bounded wait is one thing less to reason about.
        let left_ms = due.map_or(3_600_000, |due_ms| due_ms.saturating_sub(clock::boot_ms()));
        Timespec {
            tv_sec: i64::try_from(left_ms / 1000).unwrap_or(3600),
            tv_nsec: i64::try_from(left_ms % 1000 * 1_000_000).unwrap_or(0),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start(index) => {
                let event = self.start(index);
                // Before any other event, as the state machine asks.
                self.events.push_front(event);
            }
            Action::Terminate(index) => {
                if let Some(process) = self.units.get(index).and_then(|unit| unit.process.as_ref()) {
                    let _ = pidfd_send_signal(&process.pidfd, rustix::process::Signal::TERM);
                }
            }
            Action::Kill(index) | Action::Sweep(index) => {
                if let Some(unit) = self.units.get(index) {
                    spawn::kill_cgroup(&unit.cgroup);
                    if let Some(process) = &unit.process {
                        let _ = pidfd_send_signal(&process.pidfd, rustix::process::Signal::KILL);
                    }
                }
            }
            Action::Announce(how) => self.tell(&control::Event::ShuttingDown(how)),
            Action::Finish(how) => self.finish(how),
            Action::Stage(text) if !self.was_up => self.console.stage(&text),
            Action::Say(text) | Action::Stage(text) => self.say(&text),
        }
    }

    fn start(&mut self, index: usize) -> Event {
        let Some(unit) = self.units.get_mut(index) else {
            return Event::StartFailed { service: index, why: "is not in the table".into(), for_good: true };
        };
        let streams = match unit.service.tty {
            Some(path) => Streams::Terminal(path),
            None => Streams::Log(unit.input.as_fd()),
        };
        match spawn(unit.service.argv, &streams, Some(&unit.cgroup)) {
            Ok(process) => {
                let pid = process.pid;
                unit.process = Some(process);
                Event::Started { service: index, pid }
            }
            Err(Failure { why, for_good }) => Event::StartFailed { service: index, why, for_good },
        }
    }

    fn take_signals(&mut self) {
        // Each kind of signal waits once at most, so this ends.
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(i32::try_from(signal.ssi_signo).unwrap_or(0)) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(Signal::SIGINT) => self.shut_down(Shutdown::Reboot, Asked::by_init("Ctrl-Alt-Del was pressed")),
                Ok(Signal::SIGTERM) => self.shut_down(Shutdown::Reboot, Asked::by_init("PID 1 got SIGTERM")),
                Ok(Signal::SIGPWR) => self.shut_down(Shutdown::Poweroff, Asked::by_init("power is failing (SIGPWR)")),
                _ => {}
            }
        }
    }

    fn reap(&mut self) {
        for _ in 0..REAPED_A_TURN {
            let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) else { return };
            let Ok(pid) = u32::try_from(pid.as_raw_pid()) else { continue };
            let signal = status.terminating_signal().map(|signal| signal.saturating_add(128));
            let code = status.exit_status().or(signal).unwrap_or(255);
            if let Some(service) = self.supervisor.service_of(pid) {
                if let Some(unit) = self.units.get_mut(service) {
                    unit.process = None;
                }
                // Before what waits for that job is started.
                if code == 0 && self.units.get(service).is_some_and(|unit| unit.service.name == FIRMWARE) {
                    self.settle_trial();
                }
                self.on(Event::Exited { service, code });
            } else if let Some(adopted) = self.adoptions.exited(pid, Exit { code, at_unix_ms: clock::unix_ms() }) {
                self.tell(&control::Event::Exited(adopted));
            }
        }
    }

    /// The firmware's variables can be read, or never will be: says what they tell of the trial.
    fn settle_trial(&mut self) {
        if self.trial.presumed {
            self.trial = self.trial.settled(Path::new(paths::EFI_BOOT_COUNT_PATH).exists());
            self.say_trial();
        }
    }

    fn say_trial(&mut self) {
        if self.trial.running && !self.trial.presumed {
            self.say(&format!("this release is on trial until {} s after boot", self.trial.deadline_ms / 1000));
        }
    }

    fn take_output(&mut self, index: usize) {
        let Some(unit) = self.units.get_mut(index) else { return };
        let mut buffer = [0; 4096];
        for _ in 0..OUTPUT_A_TURN {
            match rustix::io::read(&unit.output, &mut buffer) {
                Ok(length) => unit.log.add(buffer.get(..length).unwrap_or_default()),
                Err(_) => return,
            }
        }
    }

    fn take_connections(&mut self) {
        for _ in 0..CONNECTIONS_A_TURN {
            let Some((socket, pid)) = accept(&self.listener) else { return };
            // Dropping the socket is the refusal.
            let Some(service) = self.service_of(pid) else { continue };
            let Some(index) = self.clients.iter().position(Option::is_none) else { continue };
            let data = EventData::new_u64(CLIENT | index as u64);
            if epoll::add(&self.epoll, &socket, data, EventFlags::IN).is_ok()
                && let Some(place) = self.clients.get_mut(index)
            {
                *place = Some(Client::new(socket, service));
            }
        }
    }

    /// The service that a process belongs to: it is its main process, or in its cgroup.
    fn service_of(&self, pid: u32) -> Option<usize> {
        self.supervisor.service_of(pid).or_else(|| {
            let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            let name = service_in(&cgroup)?;
            self.units.iter().position(|unit| unit.service.name == name)
        })
    }

    fn serve(&mut self, index: usize, flags: EventFlags) {
        let mut kept = true;
        if flags.contains(EventFlags::OUT)
            && let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut)
        {
            kept = client.flush();
        }
        for _ in 0..REQUESTS_A_TURN {
            let Some(client) = self.clients.get(index).and_then(Option::as_ref) else { return };
            if !kept || client.is_behind() {
                break;
            }
            let (service, received) = (client.service, client.receive());
            match received {
                Received::Nothing => break,
                Received::Gone => kept = false,
                // A subscriber has nothing more to ask.
                Received::Request(..) if client.subscribed => kept = false,
                Received::Request(request, fds) => {
                    let subscribes = request == Request::Subscribe;
                    let answer = requests::carry_out(self, service, request, fds);
                    kept = self.answer(index, answer, subscribes);
                }
            }
        }
        self.keep(index, kept);
    }

    fn answer(&mut self, index: usize, answer: Vec<(Reply, Vec<OwnedFd>)>, subscribes: bool) -> bool {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else { return false };
        client.subscribed |= subscribes;
        answer.into_iter().all(|(reply, fds)| client.queue(&reply, fds)) && client.flush()
    }

    /// Waits for what the client can do next, or drops it.
    fn keep(&mut self, index: usize, kept: bool) {
        let Some(place) = self.clients.get_mut(index) else { return };
        let Some(client) = place else { return };
        let flags = if client.is_behind() { EventFlags::OUT } else { EventFlags::IN };
        let data = EventData::new_u64(CLIENT | index as u64);
        if !kept || epoll::modify(&self.epoll, client.socket(), data, flags).is_err() {
            // Closing takes it out of the epoll: nobody else has a copy.
            *place = None;
        }
    }
}

impl Unit {
    fn new(service: &'static Service) -> std::io::Result<Self> {
        let (output, input) = pipe_with(PipeFlags::CLOEXEC)?;
        // Only the reading end: a service that fills the pipe waits for PID 1, not the other way round.
        rustix::io::ioctl_fionbio(&output, true)?;
        let cgroup = Path::new(paths::CGROUP_SERVICES).join(service.name);
        Ok(Self { service, cgroup, log: Log::default(), output, input, process: None })
    }
}

fn name_of(how: Shutdown) -> &'static str {
    match how {
        Shutdown::Reboot => "restart",
        Shutdown::Poweroff => "power-off",
        Shutdown::Kexec => "start of the next kernel",
    }
}
