//! Starting a container.
//!
//! The order makes a crash of this program harmless at every instant. `Starting` is on disk before anything is made;
//! what recovery finds in that phase is killed and cleared away. Until PID 1 has adopted the process it waits for us,
//! and ends when our end of its pipe closes. `Running` is on disk before the process is released; should we crash in
//! between, it ends by itself and is recorded as a run that failed.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keel_oci::Created;
use keel_store::IdMap;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::clock;
use crate::container::{Container, stdin_name};
use crate::create::{from_store, image_id};
use crate::disk::{Config, Phase};
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::files;
use crate::inside::root::Root;
use crate::output::Stream;
use crate::plan::spec::{self, IDS, Surroundings};
use crate::plan::{blkio, devices, users};
use crate::restart::{self, Ended, Next, Policy};
use crate::schedule::Job;
use crate::terminal;

/// Our ends of a container's pipes, or its terminal.
pub(crate) struct Ours {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    /// `None`: it has a terminal, and `stdout` is its master end.
    stderr: Option<OwnedFd>,
}

impl Ours {
    /// From what PID 1 kept; `None`: that is something else.
    pub(crate) fn restored(stdin: Option<OwnedFd>, fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let (stdout, stderr) = (fds.next()?, fds.next());
        fds.next().is_none().then_some(Self { stdin, stdout, stderr })
    }

    /// From a terminal's master end.
    fn of_terminal(master: OwnedFd, with_input: bool) -> std::io::Result<Self> {
        let stdin = with_input.then(|| master.try_clone()).transpose()?;
        Ok(Self { stdin, stdout: master, stderr: None })
    }

    fn outputs(&self) -> Vec<BorrowedFd<'_>> {
        std::iter::once(&self.stdout).chain(&self.stderr).map(AsFd::as_fd).collect()
    }
}

/// The container's ends.
struct Theirs {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Engine {
    /// Starts a container; [`Error::NotModified`] if it runs.
    pub fn start(&self, wanted: &str) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let _gate = container.enter();
        container.live().backoff = restart::Backoff::default();
        self.start_held(&container, 0)
    }

    /// Starts it if it still waits for its restart.
    pub(crate) fn start_by_policy(&self, id: &str) {
        let Some(container) = self.get(id) else { return };
        let _gate = container.enter();
        if container.state().phase != Phase::Restarting || self.is_shutting_down() {
            return;
        }
        let count = container.live().backoff.count;
        if let Err(error) = self.start_held(&container, count) {
            ::log::error!("container {id}: restart: {}", error.chain());
            self.plan_restart(&container, container.state().exit_code, 0);
        }
    }

    /// Starts it; the caller holds the gate.
    fn start_held(&self, container: &Arc<Container>, restart_count: u32) -> Result<(), Error> {
        if container.live().removed || container.state().phase == Phase::Removing {
            return Err(Error::no_container(&container.id));
        }
        if container.state().paused {
            return Err(Error::Conflict("cannot start a paused container, try unpause instead".into()));
        }
        if container.state().is_running() {
            return Err(Error::NotModified(format!("container {}", container.id)));
        }
        if self.is_shutting_down() {
            return Err(Error::Conflict("the host is shutting down".into()));
        }
        let before = container.state().phase;
        container.update(|state| {
            state.phase = Phase::Starting;
            state.boot_id.clone_from(&self.boot_id);
            state.restart_count = restart_count;
            state.user_stopped = false;
            state.oom_killed = false;
            state.paused = false;
            state.error.clear();
        })?;
        container.log.begin_run();
        let Err(failure) = self.launch(container) else { return Ok(()) };
        self.clear_away(container);
        container.log.end_run();
        container.note(|state| {
            state.phase = if before == Phase::Created { Phase::Created } else { Phase::Exited };
            state.pid = None;
            state.networks = None;
            state.exit_code = failure.exit_code;
            state.error = failure.error.chain();
            state.finished_unix_ms = Some(clock::unix_ms());
        });
        self.tell_of(container, "die", &[("exitCode", failure.exit_code.to_string())]);
        // A client with `--rm` waits for the removal, whether the start went well or not.
        if container.auto_remove() {
            self.schedule.add(Instant::now(), Job::Remove(container.id.clone()));
        }
        Err(failure.error)
    }

    fn launch(&self, container: &Arc<Container>) -> Result<(), Failure> {
        let config = container.config();
        let mapping = config.uid_base.map(|host_base| IdMap { host_base, count: IDS });
        let upper = container.folder.join("rootfs");
        let rootfs = self.store.mount(&image_id(&config)?, &upper, mapping).map_err(from_store)?;
        let groups = config.body.host_config.as_ref().and_then(|host| host.group_add.clone()).unwrap_or_default();
        let user = config.body.user.as_deref().unwrap_or_default();
        let inside = Root::new(rootfs.try_clone().doing(|| "copying a mount")?, 0);
        let found =
            users::find(user, &groups, &read_inside(&inside, "etc/passwd")?, &read_inside(&inside, "etc/group")?)?;
        let hostname = spec::hostname(&config, &self.host_name)?;
        files::write(&container.folder, &config, &self.around(&config, &hostname, None))?;
        let sources = self.make_sources(&config, Some(rootfs.as_fd()))?;
        let volumes = self.volumes_folder();
        let around = Surroundings { folder: &container.folder, volumes: &volumes, hostname: &hostname, found: &found };
        let mut spec = self.spec(&config, &around)?;
        self.share_network(&config, &mut spec)?;
        self.share_namespaces(&config, &mut spec)?;
        self.add_init(&config, &mut spec)?;
        sources.apply(&mut spec);
        spec.process.console_size = console_size(&config);
        let (ours, theirs) = pipes(&config).doing(|| "making pipes")?;
        let cgroup = self.cgroup(container);
        self.make_parents(cgroup.as_deref(), spec.linux.resources.as_ref())?;
        let mut created = keel_oci::create(keel_oci::Create {
            id: &container.id,
            spec: &spec,
            rootfs: rootfs.as_fd(),
            stdin: theirs.stdin,
            stdout: theirs.stdout,
            stderr: theirs.stderr,
            cgroup: cgroup.as_deref(),
            parent: self.link.parent(),
            init: self.options.oci_init.as_deref(),
        })?;
        self.settle_reservations(cgroup.as_deref(), &config)?;
        let ours = match created.take_terminal() {
            Some(master) => {
                let with_input = config.body.open_stdin == Some(true);
                Ours::of_terminal(master, with_input).doing(|| "copying a terminal")?
            }
            None => ours,
        };
        self.release(container, &config, &hostname, created, ours)
    }

    /// From a process that waits to one that runs.
    fn release(
        &self,
        container: &Arc<Container>,
        config: &Config,
        hostname: &str,
        created: Created,
        ours: Ours,
    ) -> Result<(), Failure> {
        let id = container.id.as_str();
        self.link.adopt(id, created.pid(), created.pidfd())?;
        self.link.store_fds(id, &ours.outputs())?;
        if let Some(stdin) = &ours.stdin {
            self.link.store_fds(&stdin_name(id), &[stdin.as_fd()])?;
        }
        let networks = self.join_networks(config, &created)?;
        files::write(&container.folder, config, &self.around(config, hostname, networks.as_ref()))?;
        let pidfd = created.pidfd().try_clone_to_owned().doing(|| "copying a pidfd")?;
        let pid = created.pid();
        let started = clock::unix_ms();
        container.update(|state| {
            state.phase = Phase::Running;
            state.pid = Some(pid);
            state.networks = networks;
            state.exit_code = 0;
            state.started_unix_ms = Some(started);
        })?;
        container.live().pidfd = Some(Arc::new(pidfd));
        self.connect_output(container, ours)?;
        created.start()?;
        ::log::info!("container {id} ({}) runs as process {pid}", config.name);
        self.tell_entered(container);
        self.tell_of(container, "start", &[]);
        self.watch_health(container, None);
        Ok(())
    }

    /// Has the outputs read and the input ready.
    pub(crate) fn connect_output(&self, container: &Arc<Container>, ours: Ours) -> Result<(), Error> {
        let add = |stream, pipe| self.stdio.add(&container.id, stream, pipe, container.log.clone());
        if ours.stderr.is_none() {
            let master = ours.stdout.try_clone().doing(|| "copying a terminal")?;
            container.live().terminal = Some(Arc::new(master));
        }
        add(Stream::Stdout, ours.stdout).doing(|| "watching standard output")?;
        if let Some(stderr) = ours.stderr {
            add(Stream::Stderr, stderr).doing(|| "watching standard error")?;
        }
        match ours.stdin {
            Some(pipe) => {
                rustix::io::ioctl_fionbio(&pipe, true).doing(|| "setting up standard input")?;
                container.stdin.open(pipe);
            }
            None => container.stdin.end(),
        }
        Ok(())
    }

    /// The OCI configuration of a container, with the devices that it is given as they are now.
    pub(crate) fn spec(&self, config: &Config, around: &Surroundings<'_>) -> Result<keel_oci::spec::Spec, Error> {
        let mut spec = spec::spec(config, around)?;
        let found = config.body.host_config.as_ref().map(devices::find).transpose()?.unwrap_or_default();
        for (node, rule) in found {
            spec.linux.devices.push(node);
            spec.linux.resources.get_or_insert_default().devices.push(rule);
        }
        if let Some(host) = &config.body.host_config {
            let resources = spec.linux.resources.get_or_insert_default();
            resources.block_io = blkio::find(host, resources.block_io.take())?;
        }
        Ok(spec)
    }

    /// Undoes whatever a start had done; goes on after a failure.
    pub(crate) fn clear_away(&self, container: &Arc<Container>) {
        let id = container.id.as_str();
        let report = |what: &str, result: Result<(), Error>| {
            if let Err(error) = result {
                ::log::error!("container {id}: {what}: {}", error.chain());
            }
        };
        container.live().terminal = None;
        let pidfd = container.live().pidfd.take();
        if let Some(pidfd) = pidfd {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
        }
        if let Some(cgroup) = self.cgroup(container) {
            report("killing what is left", keel_oci::cgroup::kill_all(&cgroup).doing(|| "killing its processes"));
            report("removing its cgroup", keel_oci::cgroup::remove(&cgroup).doing(|| "removing its cgroup"));
            report("removing its cgroup's parents", self.remove_parents(&cgroup));
            report("giving its memory back", self.settle_reservations(Some(&cgroup), &container.config()));
        }
        self.stdio.drain(id);
        container.stdin.reset();
        self.clear_shared_memory(container);
        if let Some(net) = self.network.opened() {
            report("taking it off the network", net.detach(id).doing(|| "detaching it"));
        }
        report("forgetting its process", self.link.forget(id));
        report("closing its pipes", self.link.drop_fds(id));
        report("closing its input", self.link.drop_fds(&stdin_name(id)));
    }

    /// Asks the restart policy what comes after a run that ended; the caller holds the gate. Whether it starts again.
    pub(crate) fn plan_restart(&self, container: &Arc<Container>, exit_code: i32, ran_ms: u64) -> bool {
        let config = container.config();
        let asked = config.body.host_config.as_ref().and_then(|host| host.restart_policy.as_ref());
        let policy = Policy::new(asked).unwrap_or(Policy::No);
        let user_stopped = container.state().user_stopped;
        let ended = Ended { exit_code, ran_ms, user_stopped, shutting_down: self.is_shutting_down() };
        let (backoff, next) = restart::step(policy, container.live().backoff, ended);
        container.live().backoff = backoff;
        let Next::StartAfter(pause_ms) = next else { return false };
        container.note(|state| state.phase = Phase::Restarting);
        let due = Instant::now() + Duration::from_millis(pause_ms);
        self.schedule.add(due, Job::Start(container.id.clone()));
        true
    }
}

/// Why a start failed, and the exit code that Docker's clients expect then.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) exit_code: i32,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, exit_code: 128 }
    }
}

impl From<keel_oci::Error> for Failure {
    fn from(error: keel_oci::Error) -> Self {
        let exit_code = match () {
            () if error.is_program_missing() => 127,
            () if error.is_program_refused() => 126,
            () => 128,
        };
        Self { error: exec_failure(error), exit_code }
    }
}

/// Why a program wasn't executed. The client asked for what isn't there: its fault. The reason is in the words and the
/// case from which Docker's client tells what it exits with (127 and 126).
fn exec_failure(error: keel_oci::Error) -> Error {
    let missing = error.is_program_missing();
    match error {
        keel_oci::Error::Exec { program, hint, source } => {
            let reason = match () {
                () if missing => "no such file or directory".into(),
                () if source.raw_os_error() == Some(13) => "permission denied".into(),
                () => source.to_string().to_lowercase(),
            };
            let task = "failed to create task for container";
            Error::BadParameter(format!("{task}: cannot execute {program:?}{hint}: {reason}"))
        }
        error => Error::internal("starting the container", error),
    }
}

/// Reads a file of the container's root as if that were `/`, so that no link leads out of it. Absent: empty.
pub(crate) fn read_inside(root: &Root, path: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    match root.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => {
            let file = File::from(file);
            if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
                let mut bounded = file.take(users::MAX_FILE_BYTES);
                bounded.read_to_end(&mut bytes).doing(|| format!("reading the image's /{path}"))?;
            }
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
        Err(error) => return Err(Error::internal(format!("opening the image's /{path}"), error)),
    }
    Ok(bytes)
}

/// Pipes for the three streams; of a container with a terminal, whose pipes come to nothing, too.
fn pipes(config: &Config) -> std::io::Result<(Ours, Theirs)> {
    let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
    let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
    let (their_stdin, stdin) = match config.body.open_stdin {
        Some(true) => {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            (theirs, Some(ours))
        }
        _ => (File::open("/dev/null")?.into(), None),
    };
    for end in [&their_stdin, &their_stdout, &their_stderr] {
        own_pipe(end, config.uid_base)?;
    }
    let ours = Ours { stdin, stdout, stderr: Some(stderr) };
    Ok((ours, Theirs { stdin: their_stdin, stdout: their_stdout, stderr: their_stderr }))
}

/// Gives a pipe to the container's root: its user may open /proc/self/fd/1 anew, which asks who owns the pipe.
pub(crate) fn own_pipe(end: &OwnedFd, base: Option<u32>) -> std::io::Result<()> {
    let Some(base) = base else { return Ok(()) };
    if rustix::fs::fstat(end)?.st_mode & 0o170_000 == 0o010_000 {
        let (user, group) = (rustix::fs::Uid::from_raw(base), rustix::fs::Gid::from_raw(base));
        rustix::fs::fchown(end, Some(user), Some(group))?;
        rustix::fs::fchmod(end, Mode::from_raw_mode(0o666))?;
    }
    Ok(())
}

/// The size that a terminal is to have from its start.
fn console_size(config: &Config) -> Option<keel_oci::spec::ConsoleSize> {
    let size = config.body.host_config.as_ref()?.console_size.as_ref()?;
    let number = |at: usize| size.get(at).and_then(|number| u16::try_from(*number).ok()).filter(|n| *n > 0);
    Some(terminal::console_size((number(0)?, number(1)?))).filter(|_| config.body.tty == Some(true))
}

/// Writes a file in place: what is mounted inside a container must keep its inode.
pub(crate) fn write_in_place(path: &Path, text: &str) -> std::io::Result<File> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}
