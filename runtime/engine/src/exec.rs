//! `exec`: further processes in a container that runs.
//!
//! Like a container's first process, they belong to PID 1, which keeps their exit codes; but nothing of them is on
//! disk, since they end with their container at the latest. After a restart of this program those that run go on,
//! and are no longer known.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard_stubs::models::{ExecConfig, HostConfig};
use keel_oci::Created;
use keel_spec::control::Adopted;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::Cancel;
use crate::cancel::Bells;
use crate::container::Container;
use crate::disk::Config;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::id;
use crate::inside::root::Root;
use crate::output::{ExecReader, StdinWriter};
use crate::plan::spec::{self, Surroundings};
use crate::plan::{process, security, users};
use crate::start::{Failure, read_inside};
use crate::stdin::Stdin;
use crate::terminal;

/// Most further processes that are known, those that ended included; the oldest of these are forgotten first.
const MAX_KNOWN: usize = 4096;
/// Ends the names under which PID 1 keeps them.
const SUFFIX: &str = "-exec";

/// A further process.
pub struct Exec {
    /// Its ID.
    pub id: String,
    /// The container's ID.
    pub container: String,
    /// What was asked for.
    pub asked: ExecConfig,
    number: u64,
    state: Mutex<State>,
    bells: Bells,
}

#[derive(Default)]
struct State {
    phase: Phase,
    pid: Option<u32>,
    pidfd: Option<Arc<OwnedFd>>,
    exit_code: Option<i32>,
    terminal: Option<Arc<OwnedFd>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Created,
    Starting,
    Running,
    Ended,
}

/// What `exec inspect` tells.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecInfo {
    /// Its ID.
    pub id: String,
    /// The container's.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
    /// Exit code once it has ended.
    pub exit_code: Option<i32>,
    /// Process ID on the host while it runs.
    pub pid: Option<u32>,
    /// What was asked for.
    pub asked: ExecConfig,
}

/// The streams of a process that was started attached.
pub struct ExecStreams {
    /// Reads its outputs.
    pub output: ExecReader,
    /// Writes to its input, if that was asked for.
    pub stdin: Option<StdinWriter>,
    /// Whether it has a terminal, so that its output is one stream without frames.
    pub terminal: bool,
}

/// All that are known.
#[derive(Default)]
pub struct Execs {
    known: Mutex<(u64, BTreeMap<String, Arc<Exec>>)>,
}

impl Execs {
    fn lock(&self) -> MutexGuard<'_, (u64, BTreeMap<String, Arc<Exec>>)> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, container: &Container, asked: ExecConfig) -> Result<Arc<Exec>, Error> {
        let id = id::random()?;
        let mut known = self.lock();
        if known.1.len() >= MAX_KNOWN {
            let oldest = known.1.values().filter(|exec| exec.is_over()).min_by_key(|exec| exec.number);
            let oldest = oldest.map(|exec| exec.id.clone()).ok_or_else(|| {
                Error::Conflict(format!("{MAX_KNOWN} exec commands are known already, and none has ended"))
            })?;
            known.1.remove(&oldest);
        }
        known.0 += 1;
        let (number, container) = (known.0, container.id.clone());
        let exec = Arc::new(Exec {
            id: id.clone(),
            container,
            asked,
            number,
            state: Mutex::default(),
            bells: Bells::default(),
        });
        known.1.insert(id, exec.clone());
        Ok(exec)
    }

    /// Those of a container, oldest first.
    pub fn of(&self, container: &str) -> Vec<Arc<Exec>> {
        let mut found: Vec<_> = self.lock().1.values().filter(|exec| exec.container == container).cloned().collect();
        found.sort_by_key(|exec| exec.number);
        found
    }

    fn forget(&self, container: &str) {
        self.lock().1.retain(|_, exec| exec.container != container);
    }
}

impl Exec {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.lock().phase == Phase::Ended
    }

    /// Whether it was started and hasn't ended.
    pub fn is_running(&self) -> bool {
        self.lock().phase == Phase::Running
    }

    /// Its exit code, once it has ended.
    pub fn exit_code(&self) -> Option<i32> {
        self.lock().exit_code
    }

    /// Rings `bell` when it ends.
    pub fn listen(&self, bell: &Cancel) {
        self.bells.add(bell);
    }

    /// Kills it; one that has ended is fine.
    pub fn kill(&self) -> rustix::io::Result<()> {
        let Some(pidfd) = self.lock().pidfd.clone() else { return Ok(()) };
        match rustix::process::pidfd_send_signal(&*pidfd, rustix::process::Signal::KILL) {
            Err(rustix::io::Errno::SRCH) => Ok(()),
            other => other,
        }
    }

    fn ended(&self, exit_code: i32) {
        let mut state = self.lock();
        if state.phase == Phase::Ended {
            return;
        }
        *state = State { phase: Phase::Ended, exit_code: Some(exit_code), ..State::default() };
        drop(state);
        self.bells.ring();
    }

    fn terminal(&self) -> bool {
        self.asked.tty == Some(true)
    }
}

/// Whether PID 1 keeps a further process under this name.
pub fn is_exec(name: &str) -> bool {
    name.strip_suffix(SUFFIX).is_some_and(id::is_id)
}

impl Engine {
    /// Prepares a further process in a container that runs; its ID.
    pub fn exec_create(&self, wanted: &str, asked: ExecConfig) -> Result<String, Error> {
        let container = self.find(wanted)?;
        check_running(&container)?;
        let words = asked.cmd.clone().unwrap_or_default();
        if words.first().is_none_or(String::is_empty) {
            return Err(Error::BadParameter("No exec command specified".into()));
        }
        let exec = self.execs.add(&container, asked)?;
        self.tell_of(&container, &format!("exec_create: {}", words.join(" ")), &[("execID", exec.id.clone())]);
        Ok(exec.id.clone())
    }

    /// Starts it. `attach`: its streams come back, as far as they were asked for at its creation; else its outputs go
    /// nowhere.
    pub fn exec_start(&self, id: &str, attach: bool, size: Option<(u16, u16)>) -> Result<Option<ExecStreams>, Error> {
        let exec = self.exec(id)?;
        let container = self.find(&exec.container)?;
        check_running(&container)?;
        {
            let mut state = exec.lock();
            match state.phase {
                Phase::Created => state.phase = Phase::Starting,
                Phase::Ended => {
                    return Err(Error::Conflict(format!("exec command {id} has run already")));
                }
                Phase::Starting | Phase::Running => {
                    return Err(Error::Conflict(format!("Error: Exec command {id} is already running")));
                }
            }
        }
        let words = exec.asked.cmd.clone().unwrap_or_default().join(" ");
        self.tell_of(&container, &format!("exec_start: {words}"), &[("execID", exec.id.clone())]);
        match self.exec_launch(&container, &exec, attach, size) {
            Ok(streams) => Ok(streams),
            Err(failure) => {
                // What isn't the program's fault is Docker's 126, too.
                exec.ended(if failure.exit_code == 127 { 127 } else { 126 });
                if !attach {
                    return Err(failure.error);
                }
                // As Docker's daemon: the client is told on the stream, and exits with the code.
                let message = format!("OCI runtime exec failed: {}\r\n", failure.error.chain());
                let output = ExecReader::telling(exec.clone(), message, self.stdio.clone());
                Ok(Some(ExecStreams { output, stdin: None, terminal: exec.terminal() }))
            }
        }
    }

    fn exec_launch(
        &self,
        container: &Arc<Container>,
        exec: &Arc<Exec>,
        attach: bool,
        size: Option<(u16, u16)>,
    ) -> Result<Option<ExecStreams>, Failure> {
        let config = container.config();
        let (spec, mut process) = self.exec_plan(container, &config, &exec.asked)?;
        process.console_size = size.filter(|_| exec.terminal()).map(terminal::console_size);
        let wants = |flag: Option<bool>| attach && flag == Some(true);
        let (ours, theirs) = pipes(exec, wants, config.uid_base).doing(|| "making pipes")?;
        let Some(first) = container.live().pidfd.clone() else { return Err(not_running(container).into()) };
        let cgroup = self.cgroup(container);
        let mut created = keel_oci::exec(keel_oci::Exec {
            id: &container.id,
            spec: &spec,
            container: first.as_fd(),
            process: &process,
            stdin: theirs.stdin,
            stdout: theirs.stdout,
            stderr: theirs.stderr,
            cgroup: cgroup.as_deref(),
            parent: self.link.parent(),
            init: self.options.oci_init.as_deref(),
        })?;
        let master = created.take_terminal();
        self.exec_release(exec, created, master.as_ref())?;
        if !attach {
            if let Some(master) = master {
                // Somebody has to read it, or the process would stop at a full terminal.
                self.stdio.discard(&exec.id, master).doing(|| "watching a terminal")?;
            }
            return Ok(None);
        }
        Ok(Some(self.exec_streams(exec, ours, master)?))
    }

    /// From a process that waits to one that runs.
    fn exec_release(&self, exec: &Arc<Exec>, created: Created, master: Option<&OwnedFd>) -> Result<(), Failure> {
        let name = format!("{}{SUFFIX}", exec.id);
        self.link.adopt(&name, created.pid(), created.pidfd())?;
        let pidfd = created.pidfd().try_clone_to_owned().doing(|| "copying a pidfd")?;
        let terminal = master.map(OwnedFd::try_clone).transpose().doing(|| "copying a terminal")?;
        {
            let mut state = exec.lock();
            state.pid = Some(created.pid());
            state.pidfd = Some(Arc::new(pidfd));
            state.terminal = terminal.map(Arc::new);
            state.phase = Phase::Running;
        }
        created.start().inspect_err(|_| {
            if let Err(error) = self.link.forget(&name) {
                ::log::error!("{name}: {}", error.chain());
            }
        })?;
        Ok(())
    }

    fn exec_streams(&self, exec: &Arc<Exec>, ours: Ours, master: Option<OwnedFd>) -> Result<ExecStreams, Error> {
        let wants_input = exec.asked.attach_stdin == Some(true);
        let copy = |fd: &OwnedFd| fd.try_clone().doing(|| "copying a terminal");
        let (input, outputs) = match master {
            Some(master) => (wants_input.then(|| copy(&master)).transpose()?, [Some(master), None]),
            None => (ours.stdin, [ours.stdout, ours.stderr]),
        };
        let stdin = match input {
            Some(pipe) => {
                rustix::io::ioctl_fionbio(&pipe, true).doing(|| "setting up standard input")?;
                let stdin = Arc::new(Stdin::new(true, || {}));
                stdin.open(pipe);
                Some(StdinWriter::new(stdin))
            }
            None => None,
        };
        let output = ExecReader::new(exec.clone(), outputs, self.stdio.clone());
        Ok(ExecStreams { output: output.doing(|| "setting up the outputs")?, stdin, terminal: exec.terminal() })
    }

    fn exec_plan(
        &self,
        container: &Arc<Container>,
        config: &Config,
        asked: &ExecConfig,
    ) -> Result<(keel_oci::spec::Spec, keel_oci::spec::Process), Error> {
        let inside = Root::new(crate::archive::running_root(container)?, config.uid_base.unwrap_or(0));
        let (passwd, group) = (read_inside(&inside, "etc/passwd")?, read_inside(&inside, "etc/group")?);
        let hostname = spec::hostname(config, &self.host_name)?;
        let mut body = config.body.clone();
        let groups = body.host_config.as_ref().and_then(|host| host.group_add.clone()).unwrap_or_default();
        let own = users::find(body.user.as_deref().unwrap_or_default(), &groups, &passwd, &group)?;
        let volumes = self.volumes_folder();
        let around = Surroundings { folder: &container.folder, volumes: &volumes, hostname: &hostname, found: &own };
        let spec = self.spec(config, &around)?;
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let user = filled(&asked.user);
        let found = match &user {
            Some(user) => users::find(user, &groups, &passwd, &group)?,
            None => own,
        };
        body.entrypoint = None;
        body.cmd.clone_from(&asked.cmd);
        body.tty = asked.tty;
        body.working_dir = filled(&asked.working_dir).or(body.working_dir);
        let further = asked.env.as_deref().unwrap_or_default();
        body.env = Some(crate::plan::merge::environment(body.env.as_deref().unwrap_or_default(), further));
        if asked.privileged == Some(true) {
            body.host_config.get_or_insert_with(HostConfig::default).privileged = Some(true);
        }
        let security = security::security(&body)?;
        let process = process::process(&body, &hostname, &found, &security)?;
        Ok((spec, process))
    }

    /// What is known of a further process.
    pub fn exec_inspect(&self, id: &str) -> Result<ExecInfo, Error> {
        let exec = self.exec(id)?;
        let state = exec.lock();
        Ok(ExecInfo {
            id: exec.id.clone(),
            container: exec.container.clone(),
            running: state.phase == Phase::Running,
            exit_code: state.exit_code,
            pid: state.pid,
            asked: exec.asked.clone(),
        })
    }

    /// Sets the size of its terminal.
    pub fn exec_resize(&self, id: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let exec = self.exec(id)?;
        let state = exec.lock();
        if state.phase != Phase::Running {
            return Err(Error::Conflict(format!("exec command {id} is not running")));
        }
        match &state.terminal {
            Some(master) => terminal::resize(master, rows, columns),
            None => Ok(()),
        }
    }

    pub(crate) fn exec(&self, id: &str) -> Result<Arc<Exec>, Error> {
        let known = self.execs.lock().1.get(id).cloned();
        known.ok_or_else(|| Error::NotFound(format!("No such exec instance: {id}")))
    }

    /// A further process that PID 1 adopted has ended.
    pub(crate) fn exec_exited(&self, adopted: &Adopted) {
        let Some(exit) = adopted.exit else { return };
        if let Err(error) = self.link.forget(&adopted.id) {
            ::log::error!("{}: {}", adopted.id, error.chain());
        }
        let Some(exec) = adopted.id.strip_suffix(SUFFIX).and_then(|id| self.exec(id).ok()) else { return };
        exec.ended(exit.code);
        if let Some(container) = self.get(&exec.container) {
            let attributes = [("execID", exec.id.clone()), ("exitCode", exit.code.to_string())];
            self.tell_of(&container, "exec_die", &attributes);
        }
    }

    /// Forgets one that nobody will ask for.
    pub(crate) fn exec_drop(&self, id: &str) {
        self.execs.lock().1.remove(id);
    }

    /// Forgets those of a container that is removed.
    pub(crate) fn exec_forget(&self, container: &str) {
        self.execs.forget(container);
    }
}

fn check_running(container: &Container) -> Result<(), Error> {
    let state = container.state();
    if !state.is_running() {
        return Err(not_running(container));
    }
    if state.paused {
        let message = format!("Container {} is paused, unpause the container before exec", container.id);
        return Err(Error::Conflict(message));
    }
    Ok(())
}

fn not_running(container: &Container) -> Error {
    Error::Conflict(format!("container {} is not running", container.id))
}

/// Our ends of its pipes, as far as there are any.
#[derive(Default)]
struct Ours {
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

struct Theirs {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

fn pipes(exec: &Exec, wants: impl Fn(Option<bool>) -> bool, base: Option<u32>) -> std::io::Result<(Ours, Theirs)> {
    let nowhere = || OpenOptions::new().write(true).open("/dev/null").map(OwnedFd::from);
    let nothing = || File::open("/dev/null").map(OwnedFd::from);
    let mut ours = Ours::default();
    if exec.terminal() {
        return Ok((ours, Theirs { stdin: nothing()?, stdout: nowhere()?, stderr: nowhere()? }));
    }
    let pipe = || -> std::io::Result<(OwnedFd, OwnedFd)> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        for end in [&read, &write] {
            crate::start::own_pipe(end, base)?;
        }
        Ok((read, write))
    };
    let mut theirs = Theirs { stdin: nothing()?, stdout: nowhere()?, stderr: nowhere()? };
    if wants(exec.asked.attach_stdin) {
        let (read, write) = pipe()?;
        (theirs.stdin, ours.stdin) = (read, Some(write));
    }
    if wants(exec.asked.attach_stdout) {
        let (read, write) = pipe()?;
        (theirs.stdout, ours.stdout) = (write, Some(read));
    }
    if wants(exec.asked.attach_stderr) {
        let (read, write) = pipe()?;
        (theirs.stderr, ours.stderr) = (write, Some(read));
    }
    Ok((ours, theirs))
}
