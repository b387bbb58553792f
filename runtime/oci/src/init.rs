//! What the re-executed child runs: the first process of a container, up to the execution of its program.
//!
//! It holds nothing of the host but the socket to its parent and the descriptors sent over it, all of which are
//! closed when it executes the program. Until then nobody else's code has run in its namespaces. `/proc/self/exe`
//! of the container is the container's own program from then on; this program's file is on a read-only root, so it
//! can't be overwritten through such a link either (the class of CVE-2019-5736).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::Mode;

use crate::plan::{Plan, ProcessPlan, Setup};
use crate::wire::{self, Reply};
use crate::{mounts, sys, terminal};

/// A step that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    step: String,
    errno: i32,
}

impl Failure {
    pub(crate) fn new(step: impl Into<String>, errno: i32) -> Self {
        Self { step: step.into(), errno }
    }

    /// Names the step of an error.
    pub(crate) fn at<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |e| Self { step: step.into(), errno: e.into().raw_os_error().unwrap_or(libc::EIO) }
    }
}

/// Runs the first process of a container, up to the execution of its program. The runtime's `main` calls this, and
/// nothing before it, when its first argument is `oci-init`.
pub fn init_main() -> ! {
    let Ok(socket) = sys::take_socket() else { std::process::exit(1) };
    let reply = match run(socket.as_fd()) {
        Ok(reply) => reply,
        Err(failure) => Reply::Failed { step: failure.step, errno: failure.errno },
    };
    // The parent may be gone; there is nobody else to tell.
    let _ = wire::send(socket.as_fd(), &reply, &[]);
    std::process::exit(1)
}

/// Returns only on failure.
fn run(socket: BorrowedFd<'_>) -> Result<Reply, Failure> {
    sys::not_dumpable().map_err(Failure::at("close the process to others"))?;
    let received = wire::receive::<Plan>(socket).map_err(Failure::at("receive the plan"))?;
    let (plan, fds) = received.ok_or_else(|| Failure::new("receive the plan", libc::EPIPE))?;
    let process = &plan.process;
    rustix::process::setsid().map_err(Failure::at("make a session"))?;
    let mut terminal = None;
    if let Some(setup) = &plan.setup {
        set_names(setup)?;
        rustix::process::umask(Mode::empty());
        let root = mounts::set_up(setup, &fds)?;
        if process.terminal {
            terminal = Some(terminal::first(root, process)?);
        }
        mounts::enter(setup, root)?;
    } else {
        join(&plan, &fds)?;
        if process.terminal {
            terminal = Some(terminal::further(process)?);
        }
    }
    drop(fds);
    rustix::process::umask(Mode::from_raw_mode(process.umask & 0o777));
    sys::close_on_exec_from(3).map_err(Failure::at("close descriptors"))?;
    drop_privileges(process)?;
    enter_cwd(&process.cwd)?;
    let program = Program::new(process)?;
    let master = terminal.as_ref().map(AsFd::as_fd);
    wire::send(socket, &Reply::Ready, master.as_slice()).map_err(Failure::at("tell the parent"))?;
    drop(terminal);
    let mut go = [0u8; 1];
    match rustix::io::retry_on_intr(|| rustix::io::read(socket, &mut go)) {
        Ok(1) => {}
        // The parent is gone, or doesn't want this container any more.
        _ => return Err(Failure::new("wait for the start", libc::EPIPE)),
    }
    sys::reset_signals();
    if process.no_new_privileges {
        filter(process)?;
    }
    Ok(program.execute())
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
    if setup.new_cgroup_ns {
        sys::new_cgroup_namespace().map_err(Failure::at("make a cgroup namespace"))?;
    }
    if let Some(name) = &setup.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(Failure::at(format!("set host name {name}")))?;
    }
    if let Some(name) = &setup.domainname {
        rustix::system::setdomainname(name.as_bytes()).map_err(Failure::at(format!("set domain name {name}")))?;
    }
    Ok(())
}

/// From root with all capabilities to the plan's user with the plan's. The filter is put in force before the
/// capabilities go that are needed for that, or at the very end where `no_new_privs` makes them unnecessary.
fn drop_privileges(plan: &ProcessPlan) -> Result<(), Failure> {
    sys::limit_bounding_set(plan.capabilities.bounding).map_err(Failure::at("limit the bounding set"))?;
    if plan.no_new_privileges {
        sys::no_new_privileges().map_err(Failure::at("set no_new_privs"))?;
    } else {
        filter(plan)?;
    }
    sys::keep_capabilities().map_err(Failure::at("keep capabilities"))?;
    let who = || format!("become user {}, group {}", plan.uid, plan.gid);
    sys::set_user(plan.uid, plan.gid, &plan.groups).map_err(Failure::at(who()))?;
    sys::set_capabilities(&plan.capabilities).map_err(Failure::at("set capabilities"))?;
    sys::not_dumpable().map_err(Failure::at("close the process to others"))
}

fn filter(plan: &ProcessPlan) -> Result<(), Failure> {
    if plan.seccomp.is_empty() {
        return Ok(());
    }
    sys::set_seccomp(&plan.seccomp).map_err(Failure::at("put the system call filter in force"))
}

/// Enters the working folder, and makes sure that it is one of the container's (CVE-2024-21626).
fn enter_cwd(cwd: &str) -> Result<(), Failure> {
    rustix::process::chdir(cwd).map_err(Failure::at(format!("enter working folder {cwd}")))?;
    let real = rustix::process::getcwd(Vec::new()).map_err(Failure::at("find the working folder"))?;
    if real.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Failure::new(format!("working folder {cwd} is outside of the container"), libc::EPERM))
    }
}

/// Arguments in the shape that execve wants, made before the filter is in force.
struct Program {
    candidates: Vec<CString>,
    args: Vec<CString>,
    env: Vec<CString>,
    hint: String,
}

/// Where programs are looked for when the environment doesn't say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most folders of `PATH` that are looked through.
const MAX_PATH_FOLDERS: usize = 256;

impl Program {
    fn new(plan: &ProcessPlan) -> Result<Self, Failure> {
        let c_string = |s: &String| CString::new(s.as_bytes()).map_err(|_| Failure::new("read words", libc::EINVAL));
        let name = plan.args.first().ok_or_else(|| Failure::new("find the program", libc::EINVAL))?;
        let path = plan.env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
        let (candidates, hint) = if name.contains('/') {
            (vec![name.clone()], String::new())
        } else {
            // An empty folder would be the working one, which an image's author may not have meant: passed over.
            let folders = path.split(':').filter(|f| !f.is_empty()).take(MAX_PATH_FOLDERS);
            (folders.map(|f| format!("{f}/{name}")).collect(), format!(" (looked for in PATH={path})"))
        };
        Ok(Self {
            candidates: candidates.iter().map(c_string).collect::<Result<_, _>>()?,
            args: plan.args.iter().map(c_string).collect::<Result<_, _>>()?,
            env: plan.env.iter().map(c_string).collect::<Result<_, _>>()?,
            hint,
        })
    }

    /// Tries each candidate, like execvp(3): one that may not be executed is remembered, one that is missing isn't.
    fn execute(self) -> Reply {
        let mut errno = libc::ENOENT;
        for candidate in &self.candidates {
            match sys::execute(candidate, &self.args, &self.env).raw_os_error().unwrap_or(libc::EIO) {
                libc::ENOENT | libc::ENOTDIR => {}
                libc::EACCES => errno = libc::EACCES,
                other => {
                    errno = other;
                    break;
                }
            }
        }
        Reply::Exec { hint: self.hint, errno }
    }
}
