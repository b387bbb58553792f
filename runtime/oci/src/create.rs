//! From a configuration to a process that waits to be started.
//!
//! Order: validate everything; make cgroup and mounts; clone; map users; send the plan; wait until the child has
//! done it. From the clone on a guard kills the child if anything fails.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions};

use crate::error::Step;
use crate::host::{self, Owner};
use crate::plan::{self, HostMount, Plan, What};
use crate::spec::{IdMapping, NamespaceKind, Spec};
use crate::sys::{self, Fork};
use crate::wire::{self, Reply};
use crate::{Error, cgroup};

/// How long the child may take for each message: seconds, because an emulated machine is slow.
const STEP_TIMEOUT_S: u64 = 60;
/// How long a killed child is waited for.
const KILL_TIMEOUT_S: i64 = 5;

/// What a container is created from.
pub struct Create<'a> {
    /// The container's ID, for messages.
    pub id: &'a str,
    /// Its configuration.
    pub spec: &'a Spec,
    /// A detached mount of its root file system.
    pub rootfs: BorrowedFd<'a>,
    /// Standard input of the process.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
    /// Its cgroup v2 folder, made if absent, with limits from the configuration; `None`: the caller's.
    pub cgroup: Option<&'a Path>,
    /// Who becomes the parent of its first process.
    pub parent: Parent,
    /// The program to execute inside, which must call [`crate::init_main`] when its first argument is `oci-init`;
    /// `None`: this one, `/proc/self/exe`. It must be executable for everybody.
    pub init: Option<&'a Path>,
}

/// Who becomes the parent of the container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The calling process, which has to reap it.
    Caller,
    /// The parent of the calling process (`CLONE_PARENT`).
    CallersParent,
}

/// A container whose first process is set up and waits. Dropped, it is killed and its cgroup removed.
#[derive(Debug)]
pub struct Created {
    pid: u32,
    pidfd: OwnedFd,
    socket: OwnedFd,
    parent: Parent,
    cgroup: CgroupGuard,
    program: String,
    started: bool,
}

/// Removes a cgroup that nothing came of.
#[derive(Debug)]
struct CgroupGuard(Option<PathBuf>);

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What is left over is found and removed by the caller's next start; there is nobody to tell here.
            let _ = cgroup::kill_all(path);
            let _ = cgroup::remove(path);
        }
    }
}

/// Creates a container, up to where its program would be executed.
pub fn create(c: Create<'_>) -> Result<Created, Error> {
    let (mut plan, host_mounts) = plan::make(c.spec)?;
    let mapped = c.spec.has_new(NamespaceKind::User);
    let owner = Owner::new(c.spec, mapped);
    let joins = open_joins(c.spec)?;
    let init = c.init.unwrap_or(Path::new("/proc/self/exe"));
    let program = rustix::fs::openat(CWD, init, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .host(|| format!("open {}", init.display()))?;
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .host(|| "make a socket pair".into())?;
    for which in [Timeout::Recv, Timeout::Send] {
        set_socket_timeout(&ours, which, Some(Duration::from_secs(STEP_TIMEOUT_S)))
            .host(|| "limit waiting on a socket".into())?;
    }
    let user = owner
        .to_host(plan.uid, plan.gid)
        .ok_or_else(|| plan::refused("process.user", "user or group isn't mapped".into()))?;
    for fd in [&c.stdin, &c.stdout, &c.stderr] {
        own_pipe(fd.as_fd(), user).host(|| "give the container its pipes".into())?;
    }
    let (cgroup, cgroup_fd) = make_cgroup(&c, owner)?;
    let fork = Fork {
        flags: clone_flags(c.spec, c.parent),
        cgroup: cgroup_fd,
        socket: high(theirs)?,
        stdio: [high(c.stdin)?, high(c.stdout)?, high(c.stderr)?],
        program: high(program)?,
        mapped,
    };
    let (pid, pidfd) = clone(&fork, &joins).host(|| format!("clone the first process of container {}", c.id))?;
    drop(fork);
    let name = plan.args.first().cloned().unwrap_or_default();
    let created = Created { pid, pidfd, socket: ours, parent: c.parent, cgroup, program: name, started: false };
    prepare(&created, c.spec, mapped)?;
    let passed = pass_mounts(&created, &mut plan, &host_mounts, owner, mapped)?;
    created.send_plan(&plan, c.rootfs, &passed)?;
    match created.reply()? {
        Some(Reply::Ready) => Ok(created),
        Some(other) => Err(created.failure(other)),
        None => Err(Error::Gone("ended while it was being set up")),
    }
}

impl Created {
    /// Process ID in the caller's namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process as a descriptor.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Its network namespace.
    pub fn net_ns(&self) -> Result<OwnedFd, Error> {
        self.namespace("net")
    }

    /// Lets it execute its program; returns when that has happened or failed.
    pub fn start(mut self) -> Result<(), Error> {
        rustix::net::send(&self.socket, &[1], SendFlags::NOSIGNAL).host(|| "start the container".into())?;
        match self.reply()? {
            // Its end of the socket closed at the execution, or because it died. Only the former is a start, but a
            // program may also end before it could be asked: its exit tells which, to whoever reaps it.
            None => {
                self.started = true;
                self.cgroup.0 = None;
                Ok(())
            }
            Some(other) => Err(self.failure(other)),
        }
    }

    fn namespace(&self, name: &str) -> Result<OwnedFd, Error> {
        let path = format!("/proc/{}/ns/{name}", self.pid);
        rustix::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).host(|| format!("open {path}"))
    }

    fn send_plan(&self, plan: &Plan, rootfs: BorrowedFd<'_>, mounts: &[OwnedFd]) -> Result<(), Error> {
        let mut fds = vec![rootfs];
        fds.extend(mounts.iter().map(AsFd::as_fd));
        wire::send(self.socket.as_fd(), plan, &fds).host(|| "send the plan to the container's first process".into())
    }

    fn reply(&self) -> Result<Option<Reply>, Error> {
        match wire::receive::<Reply>(self.socket.as_fd()) {
            Ok(reply) => Ok(reply.map(|(reply, _)| reply)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(Error::Gone("didn't answer in time")),
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(e) => Err(Error::Host { step: "hear from the container's first process".into(), source: e }),
        }
    }

    fn failure(&self, reply: Reply) -> Error {
        match reply {
            Reply::Ready => Error::Gone("answered out of turn"),
            Reply::Failed { step, errno } => Error::Inside { step, source: io::Error::from_raw_os_error(errno) },
            Reply::Exec { hint, errno } => {
                Error::Exec { program: self.program.clone(), hint, source: io::Error::from_raw_os_error(errno) }
            }
        }
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if self.started {
            return;
        }
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let timeout = Timespec { tv_sec: KILL_TIMEOUT_S, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout));
        if self.parent == Parent::Caller {
            let _ = rustix::process::waitid(
                WaitId::PidFd(self.pidfd.as_fd()),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
    }
}

/// What can only be done from outside, before the child goes on: its user mapping and what needs the host's rights.
fn prepare(created: &Created, spec: &Spec, mapped: bool) -> Result<(), Error> {
    let proc = PathBuf::from(format!("/proc/{}", created.pid));
    if mapped {
        for (file, lines) in [("uid_map", &spec.linux.uid_mappings), ("gid_map", &spec.linux.gid_mappings)] {
            std::fs::write(proc.join(file), map_text(lines)).host(|| format!("write {file} of the container"))?;
        }
    }
    if let Some(score) = spec.process.oom_score_adj {
        std::fs::write(proc.join("oom_score_adj"), score.to_string()).host(|| format!("set oom_score_adj {score}"))?;
    }
    let pid = rustix::process::Pid::from_raw(created.pid as i32);
    for limit in &spec.process.rlimits {
        let resource = resource(&limit.kind)
            .ok_or_else(|| plan::refused("process.rlimits", format!("{:?} is no limit", limit.kind)))?;
        let number = |n: u64| (n != u64::MAX).then_some(n);
        let value = Rlimit { current: number(limit.soft), maximum: number(limit.hard) };
        rustix::process::prlimit(pid, resource, value).host(|| format!("set {}", limit.kind))?;
    }
    rustix::net::send(&created.socket, &[1], SendFlags::NOSIGNAL).host(|| "let the first process go on".into())?;
    Ok(())
}

/// Makes the mounts that the child is passed, in the order of the plan.
fn pass_mounts(
    created: &Created,
    plan: &mut Plan,
    host_mounts: &[HostMount],
    owner: Owner<'_>,
    mapped: bool,
) -> Result<Vec<OwnedFd>, Error> {
    let userns = if mapped { Some(created.namespace("user")?) } else { None };
    let mut out = Vec::with_capacity(host_mounts.len());
    for mount in host_mounts {
        let (fd, is_file) = host::make(mount, owner, userns.as_ref().map(AsFd::as_fd))?;
        out.push(fd);
        let place = out.len();
        for planned in &mut plan.mounts {
            if let What::Passed { index, file } = &mut planned.what
                && *index == place
            {
                *file = is_file;
            }
        }
    }
    Ok(out)
}

fn make_cgroup(c: &Create<'_>, owner: Owner<'_>) -> Result<(CgroupGuard, Option<OwnedFd>), Error> {
    let Some(path) = c.cgroup else { return Ok((CgroupGuard(None), None)) };
    let guard = CgroupGuard(Some(path.to_owned()));
    let default = Default::default();
    cgroup::create(path, c.spec.linux.resources.as_ref().unwrap_or(&default))?;
    if let Some((uid, gid)) = owner.to_host(0, 0).filter(|(uid, _)| *uid != 0) {
        cgroup::delegate(path, uid, gid)?;
    }
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).host(|| format!("open cgroup {}", path.display()))?;
    Ok((guard, Some(fd)))
}

fn clone_flags(spec: &Spec, parent: Parent) -> u64 {
    let mut flags = 0;
    for namespace in spec.linux.namespaces.iter().filter(|n| n.path.is_none()) {
        flags |= match namespace.kind {
            NamespaceKind::Pid => libc::CLONE_NEWPID,
            NamespaceKind::Network => libc::CLONE_NEWNET,
            NamespaceKind::Mount => libc::CLONE_NEWNS,
            NamespaceKind::Ipc => libc::CLONE_NEWIPC,
            NamespaceKind::Uts => libc::CLONE_NEWUTS,
            NamespaceKind::User => libc::CLONE_NEWUSER,
            // With CLONE_INTO_CGROUP the new namespace would be rooted at the caller's cgroup: the child makes it.
            NamespaceKind::Cgroup => 0,
        } as u64;
    }
    if parent == Parent::CallersParent {
        flags |= libc::CLONE_PARENT as u64;
    }
    flags
}

fn open_joins(spec: &Spec) -> Result<Vec<OwnedFd>, Error> {
    let joined = spec.linux.namespaces.iter().filter_map(|n| n.path.as_ref());
    joined
        .map(|path| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            rustix::fs::openat(CWD, path, flags, Mode::empty()).host(|| format!("open namespace {path}"))
        })
        .collect()
}

/// Clones; where namespaces are joined, from a thread of its own that has joined them, so that the child starts there
/// even when they belong to a user namespace that it has no rights in.
fn clone(fork: &Fork, joins: &[OwnedFd]) -> io::Result<(u32, OwnedFd)> {
    if joins.is_empty() {
        return sys::fork(fork);
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(64 << 10).spawn_scoped(scope, || {
            for ns in joins {
                sys::join_namespace(ns.as_fd())?;
            }
            sys::fork(fork)
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the cloning thread panicked")))
    })
}

/// A copy of a descriptor that is in nobody's way when the child puts 0 to 4 in their places.
fn high(fd: OwnedFd) -> Result<OwnedFd, Error> {
    rustix::io::fcntl_dupfd_cloexec(&fd, 10).host(|| "copy a descriptor".into())
}

/// Pipes are given to the container's user, so that it can open them again as `/dev/stdout`.
fn own_pipe(fd: BorrowedFd<'_>, (uid, gid): (u32, u32)) -> io::Result<()> {
    let stat = rustix::fs::fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && (stat.st_uid, stat.st_gid) != (uid, gid) {
        rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

fn map_text(lines: &[IdMapping]) -> String {
    lines.iter().map(|l| format!("{} {} {}\n", l.container_id, l.host_id, l.size)).collect()
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_STACK" => Resource::Stack,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        _ => return None,
    })
}

/// Opens a pidfd; here so that callers that recover a container use the same flags.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}
