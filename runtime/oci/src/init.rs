//! What the re-executed child runs: the first process of a container, up to the execution of its program.
//!
//! It holds nothing of the host but the socket to its parent and the descriptors sent over it, all of which are
//! closed when it executes the program. Until then nobody else's code has run in its namespaces. `/proc/self/exe`
//! of the container is the container's own program from then on; this program's file is on a read-only root, so it
//! can't be overwritten through such a link either (the class of CVE-2019-5736).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::net::SocketFlags;

use crate::hooks::{self, HookError};
use crate::labels::Label;
use crate::plan::{Plan, ProcessPlan, Setup};
use crate::program::Program;
use crate::wire::{self, Reply};
use crate::{caps, limits, mounts, procfs, steps, sys, terminal};

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    step: String,
    errno: i32,
    /// In place of the errno's text.
    said: Option<String>,
}

impl Failure {
    pub(crate) fn new(step: impl Into<String>, errno: i32) -> Self {
        Self { step: step.into(), errno, said: None }
    }

    /// Names the step of an error.
    pub(crate) fn at<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |e| {
            let e: io::Error = e.into();
            match e.raw_os_error() {
                Some(errno) => Self::new(step, errno),
                None => Self { step: step.into(), errno: libc::EIO, said: Some(e.to_string()) },
            }
        }
    }
}

impl From<HookError> for Failure {
    fn from(e: HookError) -> Self {
        Self { step: e.to_string(), errno: libc::EIO, said: Some(e.source.to_string()) }
    }
}

/// Runs the first process of a container, up to the execution of its program. The runtime's `main` calls this, and
/// nothing before it, when its first argument is `oci-init`.
pub fn init_main() -> ! {
    let Ok(mut socket) = sys::take_socket() else { std::process::exit(1) };
    let reply = match run(&mut socket) {
        Ok(reply) => reply,
        Err(failure) => Reply::Failed { step: failure.step, errno: failure.errno, said: failure.said },
    };
    // The parent may be gone; there is nobody else to tell.
    let _ = wire::send(socket.as_fd(), &reply, &[]);
    std::process::exit(1)
}

/// Returns only on failure. `socket` is replaced by the connection of whoever starts it.
fn run(socket: &mut OwnedFd) -> Result<Reply, Failure> {
    sys::not_dumpable().map_err(Failure::at("close the process to others"))?;
    let received = wire::receive::<Plan>(socket.as_fd()).map_err(Failure::at("receive the plan"))?;
    let (plan, mut fds) = received.ok_or_else(|| Failure::new("receive the plan", libc::EPIPE))?;
    if plan.timed {
        steps::begin("inside: start this program, receive the plan");
    }
    let process = &plan.process;
    let kept = plan.preserved + usize::from(plan.listens) + usize::from(process.notify.is_some());
    let kept = fds.len().checked_sub(kept).ok_or_else(|| Failure::new("receive descriptors", libc::EPROTO))?;
    let mut passed_on = fds.split_off(kept);
    let notified = if process.notify.is_some() { passed_on.pop() } else { None };
    let listener = if plan.listens { passed_on.pop() } else { None };
    rustix::process::setsid().map_err(Failure::at("make a session"))?;
    if let Some(name) = &plan.keyring {
        if let Some(label) = &process.key_label {
            let written = procfs::write("self/attr/keycreate", label);
            written.map_err(Failure::at(format!("set SELinux label {label:?} of keys (the policy must know it)")))?;
        }
        sys::new_session_keyring(name).map_err(Failure::at("make a session keyring"))?;
    }
    // Opened while `/proc` is the host's, which the container has no influence on (the class of CVE-2025-52881).
    let labels = process.labels.iter().map(open_label).collect::<Result<Vec<_>, _>>()?;
    let terminal = enter(&plan, &fds, socket.as_fd())?;
    drop(fds);
    steps::mark("inside: change the root");
    rustix::process::umask(Mode::from_raw_mode(process.umask & 0o777));
    sys::close_on_exec_from(3).map_err(Failure::at("close descriptors"))?;
    let (listener, notified, labels) = arrange(socket, listener, notified, labels, passed_on)
        .map_err(Failure::at("put descriptors in their places"))?;
    // As the runtime first, which may enter more; only what it may not is tried as the process's user.
    let entered = enter_cwd(&process.cwd)?;
    drop_privileges(process)?;
    if !entered && !enter_cwd(&process.cwd)? {
        return Err(Failure::new(format!("enter working folder {}", process.cwd), libc::EACCES));
    }
    let program = match Program::find(process) {
        Ok(program) => program,
        Err(other) => return other,
    };
    let master = terminal.as_ref().map(AsFd::as_fd);
    // The kernel looks at a label here, so one that it doesn't know fails the creation. Programs that are executed from
    // here on, the hooks inside among them, have it.
    for (fd, label) in labels.iter().zip(&process.labels) {
        let written = rustix::io::write(fd, label.text.as_bytes());
        written.map_err(Failure::at(format!("set {}", label.what)))?;
    }
    drop(labels);
    steps::mark("inside: drop rights, find the program");
    let ready = Reply::Ready { marks: steps::take() };
    wire::send(socket.as_fd(), &ready, master.as_slice()).map_err(Failure::at("tell the parent"))?;
    drop(terminal);
    await_start(socket, listener)?;
    hooks::run("startContainer", &plan.hooks.start_container, &plan.hooks.created)?;
    sys::reset_signals();
    limits::set(&process.limits)?;
    // Last of all, so that the filter needn't allow what the runtime does.
    filter(process, notified)?;
    Ok(program.execute())
}

/// Into the container: one that is made here, or one that runs. Returns the master of the terminal, if there is one.
fn enter(plan: &Plan, fds: &[OwnedFd], socket: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Failure> {
    let Some(setup) = &plan.setup else {
        join(plan, fds)?;
        return if plan.process.terminal { terminal::further(&plan.process).map(Some) } else { Ok(None) };
    };
    set_names(setup)?;
    rustix::process::umask(Mode::empty());
    steps::mark("inside: make namespaces, set names");
    let root = mounts::set_up(setup, fds)?;
    steps::mark("inside: protect and mask paths");
    let terminal = if plan.process.terminal { Some(terminal::first(root, &plan.process)?) } else { None };
    if plan.hooks.parents {
        wire::send(socket, &Reply::Mounted, &[]).map_err(Failure::at("tell the parent"))?;
        byte(socket).map_err(Failure::at("wait for the parent's hooks"))?;
    }
    hooks::run("createContainer", &plan.hooks.create_container, &plan.hooks.creating)?;
    mounts::enter(setup, root, plan.no_pivot)?;
    Ok(terminal)
}

type Arranged = (Option<OwnedFd>, Option<OwnedFd>, Vec<OwnedFd>);

/// The process's own descriptors come from 3 on; what this program needs until then goes above them.
fn arrange(
    socket: &mut OwnedFd,
    listener: Option<OwnedFd>,
    notified: Option<OwnedFd>,
    labels: Vec<OwnedFd>,
    preserved: Vec<OwnedFd>,
) -> io::Result<Arranged> {
    if preserved.is_empty() {
        return Ok((listener, notified, labels));
    }
    let above = 3 + preserved.len() as i32;
    let up = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, above);
    let preserved = preserved.into_iter().map(up).collect::<Result<Vec<_>, _>>()?;
    let (listener, notified) = (listener.map(up).transpose()?, notified.map(up).transpose()?);
    let labels = labels.into_iter().map(up).collect::<Result<Vec<_>, _>>()?;
    *socket = rustix::io::fcntl_dupfd_cloexec(&*socket, above)?;
    sys::place_from_3(&preserved)?;
    Ok((listener, notified, labels))
}

/// Opens the file of a label.
fn open_label(label: &Label) -> Result<OwnedFd, Failure> {
    let path = format!("self/{}", label.file);
    procfs::open(&path, OFlags::WRONLY).map_err(Failure::at(format!("open /proc/{path}")))
}

/// Puts the filter in force, and gives its listener to the agent.
fn filter(process: &ProcessPlan, notified: Option<OwnedFd>) -> Result<(), Failure> {
    if process.seccomp.is_empty() {
        return Ok(());
    }
    let listener = sys::set_seccomp(&process.seccomp, process.seccomp_flags, notified.is_some())
        .map_err(Failure::at("put the system call filter in force"))?;
    if let (Some(listener), Some(socket), Some(text)) = (listener, notified, &process.notify) {
        let sent = wire::send_text(socket.as_fd(), text, listener.as_fd());
        sent.map_err(Failure::at("give the filter's listener to its agent"))?;
    }
    Ok(())
}

/// Waits for one byte: from the parent, or from whoever connects.
fn await_start(socket: &mut OwnedFd, listener: Option<OwnedFd>) -> Result<(), Failure> {
    let step = "wait for the start";
    if let Some(listener) = listener {
        let accept = || rustix::net::accept_with(&listener, SocketFlags::CLOEXEC);
        *socket = rustix::io::retry_on_intr(accept).map_err(Failure::at(step))?;
    }
    byte(socket.as_fd()).map_err(Failure::at(step))
}

fn byte(socket: BorrowedFd<'_>) -> io::Result<()> {
    let mut go = [0u8; 1];
    match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut go))? {
        1 => Ok(()),
        // The parent is gone, or doesn't want this container any more.
        _ => Err(io::Error::from_raw_os_error(libc::EPIPE)),
    }
}

/// Joins a running container. From the host's rights to those of its user namespace, if it has one.
fn join(plan: &Plan, fds: &[OwnedFd]) -> Result<(), Failure> {
    let container = fds.first().ok_or_else(|| Failure::new("receive the container", libc::EPROTO))?;
    if plan.join != 0 {
        sys::join(container.as_fd(), plan.join).map_err(Failure::at("join the container's namespaces"))?;
    }
    if plan.join & libc::CLONE_NEWUSER != 0 && !sys::become_root() {
        let last = io::Error::last_os_error();
        return Err(Failure::at("become root of the container's user namespace")(last));
    }
    sys::not_dumpable().map_err(Failure::at("close the process to others"))
}

fn set_names(setup: &Setup) -> Result<(), Failure> {
    if setup.own_namespaces != 0 {
        sys::new_namespaces(setup.own_namespaces).map_err(Failure::at("make namespaces of its own"))?;
    }
    if let Some(offsets) = &setup.time_offsets {
        // It becomes this process's own at the next execution, until when its clocks can be set.
        sys::new_time_namespace().map_err(Failure::at("make a time namespace"))?;
        if !offsets.is_empty() {
            let written = procfs::write("self/timens_offsets", offsets);
            written.map_err(Failure::at(format!("set clock offsets {offsets:?}")))?;
        }
    }
    if let Some(domain) = setup.personality {
        sys::personality(domain).map_err(Failure::at("set the execution domain"))?;
    }
    if let Some(name) = &setup.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(Failure::at(format!("set host name {name}")))?;
    }
    if let Some(name) = &setup.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(Failure::at(format!("set domain name {name}")))?;
    }
    Ok(())
}

/// From root with all capabilities to the plan's user with the plan's. Without `no_new_privs`, `CAP_SYS_ADMIN` stays
/// until the execution, which takes it: what a program has then doesn't come of what this one held (capabilities(7),
/// "Transformation of capabilities during execve"). It is for the filter, which comes last.
fn drop_privileges(process: &ProcessPlan) -> Result<(), Failure> {
    sys::limit_bounding_set(process.capabilities.bounding).map_err(Failure::at("limit the bounding set"))?;
    if process.no_new_privileges {
        sys::no_new_privileges().map_err(Failure::at("set no_new_privs"))?;
    }
    sys::keep_capabilities().map_err(Failure::at("keep capabilities"))?;
    let who = || format!("become user {}, group {}", process.uid, process.gid);
    sys::set_user(process.uid, process.gid, &process.groups).map_err(Failure::at(who()))?;
    let mut sets = process.capabilities;
    if !process.no_new_privileges && !process.seccomp.is_empty() {
        sets.permitted |= 1 << caps::SYS_ADMIN;
        sets.effective |= 1 << caps::SYS_ADMIN;
    }
    sys::set_capabilities(&sets).map_err(Failure::at("set capabilities"))?;
    sys::not_dumpable().map_err(Failure::at("close the process to others"))
}

/// Enters the working folder, and makes sure that it is one of the container's (CVE-2024-21626). `false`: this user may
/// not enter it.
fn enter_cwd(cwd: &str) -> Result<bool, Failure> {
    match rustix::process::chdir(cwd) {
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => return Ok(false),
        other => other.map_err(Failure::at(format!("enter working folder {cwd}")))?,
    }
    let real = rustix::process::getcwd(Vec::new()).map_err(Failure::at("find the working folder"))?;
    if real.as_bytes().starts_with(b"/") {
        Ok(true)
    } else {
        Err(Failure::new(format!("working folder {cwd} is outside of the container"), libc::EPERM))
    }
}
