//! From a configuration to a process that waits to be started.
//!
//! Order: validate everything; make cgroup and mounts; clone; map users; send the plan; wait until the child has
//! done it. From the clone on a guard kills the child if anything fails.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Uid};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::PidfdFlags;

use crate::created::{CgroupGuard, Created};
use crate::error::Step;
use crate::hooks::{self, State};
use crate::host::{self, Owner};
use crate::options::attr;
use crate::plan::{self, Plan, ProcessPlan};
use crate::planned::{HostMount, What};
use crate::spec::{Linux, NamespaceKind, Process, Spec};
use crate::sys::{self, Fork};
use crate::{Error, cgroup, limits, mounts, procfs, rdt, schedule, steps, userns};

/// How long the child may take for each message: seconds, because an emulated machine is slow.
const STEP_TIMEOUT_S: u64 = 60;

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

/// What few callers need: all absent by default.
#[derive(Debug, Default)]
pub struct Extras<'a> {
    /// Where the container's files are, for the state that hooks are told; `None`: empty.
    pub bundle: Option<&'a Path>,
    /// A listening socket on which the start will come, from whatever process, instead of from [`Created::start`].
    pub listener: Option<OwnedFd>,
    /// Descriptors that the process has as 3 and following.
    pub preserved: Vec<OwnedFd>,
    /// Whether the process stays in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Whether the root is entered by moving its mount and chroot(2), for roots on the initial ramdisk.
    pub no_pivot: bool,
}

/// Who becomes the parent of the container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The calling process, which has to reap it.
    Caller,
    /// The parent of the calling process (`CLONE_PARENT`).
    CallersParent,
}

/// A process that is about to be made.
pub(crate) struct Child<'a> {
    pub id: &'a str,
    /// `CLONE_NEW…`.
    pub flags: u64,
    pub cgroup: (CgroupGuard, Option<OwnedFd>),
    pub stdio: [OwnedFd; 3],
    pub parent: Parent,
    pub init: Option<&'a Path>,
    pub mapped: bool,
    pub joined: Vec<(OwnedFd, i32)>,
}

impl Child<'_> {
    /// Makes it. From here on a guard kills it if anything fails.
    pub(crate) fn make(self, process: &ProcessPlan) -> Result<Created, Error> {
        let program = own_program(self.init.unwrap_or(Path::new("/proc/self/exe")))?;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .host(|| "make a socket pair".into())?;
        for which in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(&ours, which, Some(Duration::from_secs(STEP_TIMEOUT_S)))
                .host(|| "limit waiting on a socket".into())?;
        }
        let [stdin, stdout, stderr] = self.stdio;
        let (guard, cgroup) = self.cgroup;
        let adopted = if self.parent == Parent::CallersParent { libc::CLONE_PARENT as u64 } else { 0 };
        let fork = Fork {
            flags: self.flags | adopted,
            cgroup,
            socket: high(theirs)?,
            stdio: [high(stdin)?, high(stdout)?, high(stderr)?],
            program: high(program)?,
            mapped: self.mapped,
            joined: self.joined,
        };
        let (pid, pidfd) = sys::fork(&fork).host(|| format!("clone a process of container {}", self.id))?;
        Ok(Created {
            pid,
            pidfd,
            socket: ours,
            parent: self.parent,
            cgroup: guard,
            class: rdt::Guard::default(),
            program: process.args.first().cloned().unwrap_or_default(),
            terminal: None,
            started: false,
        })
    }
}

/// Creates a container, up to where its program would be executed.
pub fn create(c: Create<'_>) -> Result<Created, Error> {
    create_with(c, Extras::default())
}

/// [`create`] with what few callers need.
pub fn create_with(c: Create<'_>, extras: Extras<'_>) -> Result<Created, Error> {
    let confined = userns::is_confined();
    let (mut plan, host_mounts) = plan::create(c.spec, confined)?;
    let joined = open_joined(c.spec)?;
    let spec = &*userns::with_mappings(c.spec, joined.iter().find(|(_, kind)| *kind == libc::CLONE_NEWUSER))?;
    let mapped = spec.uses_user_namespace();
    let owner = Owner::new(spec, mapped);
    steps::mark("check the configuration");
    let cgroup = make_cgroup(&c, owner, confined)?;
    steps::mark("make the cgroup");
    let stdio = [c.stdin, c.stdout, c.stderr];
    if !plan.process.terminal {
        own_pipes(&stdio, owner, &plan.process, confined)?;
    }
    // Or what is mounted inside would be mounted on the host, too, where the root is on a shared mount.
    sys::mount_setattr(c.rootfs, true, 0, 0, libc::MS_SLAVE, None).host(|| "keep mounts in the container".into())?;
    let child =
        Child { id: c.id, flags: clone_flags(c.spec), cgroup, stdio, parent: c.parent, init: c.init, mapped, joined };
    let mut created = child.make(&plan.process)?;
    steps::mark("clone");
    created.class = rdt::enter(c.spec, c.id, created.pid)?;
    prepare(&created, &c.spec.process, c.spec.has_new(NamespaceKind::User).then_some(&c.spec.linux), confined)?;
    created.go()?;
    steps::mark("map users, set limits");
    let passed = pass_mounts(&created, &mut plan, &host_mounts, owner, mapped)?;
    steps::mark("make the mounts that the host must make");
    let bundle = extras.bundle.map(|b| b.to_string_lossy()).unwrap_or_default();
    if c.spec.hooks.is_some() {
        plan.hooks.creating = State::json(c.spec, c.id, &bundle, "creating", created.pid);
        plan.hooks.created = State::json(c.spec, c.id, &bundle, "created", created.pid);
    }
    let mut fds = vec![c.rootfs];
    fds.extend(passed.iter().map(AsFd::as_fd));
    let notified = notify(&mut plan, c.spec, c.id, &bundle, created.pid)?;
    extras.send(&created, plan, fds, notified.as_ref(), c.id)?;
    steps::mark("send the plan");
    if let Some(hooks) = c.spec.hooks.as_ref().filter(|h| !h.prestart.is_empty() || !h.create_runtime.is_empty()) {
        created.until_mounted()?;
        let state = State::json(c.spec, c.id, &bundle, "creating", created.pid);
        hooks::run("prestart", &hooks.prestart, &state)?;
        hooks::run("createRuntime", &hooks.create_runtime, &state)?;
        created.go()?;
    }
    created.until_ready()
}

impl Extras<'_> {
    /// Sends the plan with descriptors, these last.
    pub(crate) fn send(
        &self,
        created: &Created,
        mut plan: Plan,
        mut fds: Vec<BorrowedFd<'_>>,
        notified: Option<&OwnedFd>,
        id: &str,
    ) -> Result<(), Error> {
        plan.keyring = (!self.no_new_keyring).then(|| format!("_ses.{id}"));
        plan.preserved = self.preserved.len();
        plan.listens = self.listener.is_some();
        plan.no_pivot = self.no_pivot;
        plan.timed = steps::are_taken();
        let fds: Vec<_> =
            fds.drain(..).chain(self.preserved.iter().chain(&self.listener).chain(notified).map(AsFd::as_fd)).collect();
        created.send(&plan, &fds)
    }
}

/// Connects to the agent of the system call filter, and words what it is told (config-linux.md, "The Container
/// Process State").
pub(crate) fn notify(plan: &mut Plan, spec: &Spec, id: &str, bundle: &str, pid: u32) -> Result<Option<OwnedFd>, Error> {
    let Some(seccomp) = spec.linux.seccomp.as_ref().filter(|_| plan.process.notify.is_some()) else { return Ok(None) };
    let path = seccomp.listener_path.as_deref().unwrap_or_default();
    let step = || format!("connect to the system call filter's agent at {path}");
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.host(step)?;
    rustix::net::connect(&socket, &rustix::net::SocketAddrUnix::new(path).host(step)?).host(step)?;
    let status = if plan.setup.is_some() { "creating" } else { "running" };
    let state: serde_json::Value =
        serde_json::from_str(&State::json(spec, id, bundle, status, pid)).unwrap_or_default();
    let told = serde_json::json!({
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": seccomp.listener_metadata.as_deref().unwrap_or_default(),
        "state": state,
    });
    plan.process.notify = Some(told.to_string());
    Ok(Some(socket))
}

/// What can only be done from outside, before the child goes on: its user mapping and what needs the host's rights.
pub(crate) fn prepare(created: &Created, process: &Process, map: Option<&Linux>, confined: bool) -> Result<(), Error> {
    if let Some(linux) = map {
        userns::write_maps(created.pid, &linux.uid_mappings, &linux.gid_mappings)
            .host(|| "map the container's users".into())?;
    }
    if let Some(score) = process.oom_score_adj {
        let written = procfs::write(format!("{}/oom_score_adj", created.pid), &score.to_string());
        // Only the host may lower it; engines ask for that in the hope of it.
        let refused = |e: &io::Error| confined && e.kind() == io::ErrorKind::PermissionDenied;
        written.or_else(|e| if refused(&e) { Ok(()) } else { Err(e) }).host(|| format!("set oom_score_adj {score}"))?;
    }
    limits::raise(created.pid, &process.rlimits)?;
    schedule::apply(created.pid, process)
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
        for planned in plan.setup.iter_mut().flat_map(|s| &mut s.mounts.list) {
            if let What::Passed { index, file } = &mut planned.what
                && *index == place
            {
                *file = is_file;
            }
        }
    }
    Ok(out)
}

fn make_cgroup(c: &Create<'_>, owner: Owner<'_>, confined: bool) -> Result<(CgroupGuard, Option<OwnedFd>), Error> {
    let Some(path) = c.cgroup else { return Ok((CgroupGuard(None), None)) };
    let guard = CgroupGuard(Some(path.to_owned()));
    let mut resources = c.spec.linux.resources.clone().unwrap_or_default();
    if confined {
        // The kernel lets nobody load a device filter here, and nobody make a device node, either.
        resources.devices.clear();
    }
    cgroup::create(path, &resources)?;
    if let Some((uid, gid)) = owner.to_host(0, 0).filter(|(uid, _)| *uid != 0) {
        cgroup::delegate(path, uid, gid)?;
    }
    Ok((guard, Some(cgroup::open(path)?)))
}

fn clone_flags(spec: &Spec) -> u64 {
    let new = spec.linux.namespaces.iter().filter(|n| n.path.is_none());
    // With CLONE_INTO_CGROUP the new namespace would be rooted at the caller's cgroup: the child makes it.
    // A time namespace takes its offsets only before anybody is in it: the child makes that, too, for its program.
    let flags = new.filter(|n| n.kind != NamespaceKind::Time).fold(0, |flags, n| flags | clone_flag(n.kind) as u64);
    flags & !(plan::own_namespaces(spec) as u64)
}

/// `CLONE_NEW…`.
pub(crate) fn clone_flag(kind: NamespaceKind) -> i32 {
    match kind {
        NamespaceKind::Pid => libc::CLONE_NEWPID,
        NamespaceKind::Network => libc::CLONE_NEWNET,
        NamespaceKind::Mount => libc::CLONE_NEWNS,
        NamespaceKind::Ipc => libc::CLONE_NEWIPC,
        NamespaceKind::Uts => libc::CLONE_NEWUTS,
        NamespaceKind::User => libc::CLONE_NEWUSER,
        NamespaceKind::Cgroup => libc::CLONE_NEWCGROUP,
        NamespaceKind::Time => libc::CLONE_NEWTIME,
    }
}

fn open_joined(spec: &Spec) -> Result<Vec<(OwnedFd, i32)>, Error> {
    let mut joined: Vec<_> =
        spec.linux.namespaces.iter().filter_map(|n| n.path.as_ref().map(|path| (path, n.kind))).collect();
    // Last, because it takes the right to join others.
    joined.sort_by_key(|(_, kind)| *kind == NamespaceKind::User);
    joined
        .into_iter()
        .map(|(path, kind)| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).host(|| format!("open namespace {path}"))?;
            Ok((fd, clone_flag(kind)))
        })
        .collect()
}

/// The program that the child executes, through a read-only mount that is nowhere attached: what a container reaches by
/// a link to it (`/proc/PID/exe`) can't be opened for writing, whatever rights it has (the class of CVE-2019-5736).
fn own_program(path: &Path) -> Result<OwnedFd, Error> {
    let step = || format!("open {} read-only", path.display());
    let fd = match mounts::clone_mount(CWD, path, false) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => by_its_name(path),
        other => other,
    };
    let fd = fd.host(step)?;
    sys::mount_setattr(fd.as_fd(), false, attr::RDONLY | attr::NOSUID, 0, 0, None).host(step)?;
    Ok(fd)
}

/// A process that has changed its mount namespace still executes a file of the former one, which can't be cloned here: the
/// file of that name, if it is the same one.
fn by_its_name(link: &Path) -> io::Result<OwnedFd> {
    let fd = mounts::clone_mount(CWD, std::fs::read_link(link)?, false)?;
    let (found, own) = (rustix::fs::fstat(&fd)?, rustix::fs::stat(link)?);
    match (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino) {
        true => Ok(fd),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// A copy of a descriptor that is in nobody's way when the child puts 0 to 4 in their places.
pub(crate) fn high(fd: impl AsFd) -> Result<OwnedFd, Error> {
    rustix::io::fcntl_dupfd_cloexec(fd, 10).host(|| "copy a descriptor".into())
}

/// Pipes are given to the container's user, so that it can open them again as `/dev/stdout`.
pub(crate) fn own_pipes(
    stdio: &[OwnedFd; 3],
    owner: Owner<'_>,
    process: &ProcessPlan,
    confined: bool,
) -> Result<(), Error> {
    let user = owner
        .to_host(process.uid, process.gid)
        .ok_or_else(|| plan::refused("process.user", "user or group isn't mapped".into()))?;
    // Those of somebody outside of this user namespace can't be given away; they can be used all the same.
    let own = |fd: &OwnedFd| own_pipe(fd.as_fd(), user).or_else(|e| if confined { Ok(()) } else { Err(e) });
    stdio.iter().try_for_each(|fd| own(fd).host(|| "give the container its pipes".into()))
}

fn own_pipe(fd: BorrowedFd<'_>, (uid, gid): (u32, u32)) -> io::Result<()> {
    let stat = rustix::fs::fstat(fd)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Fifo && (stat.st_uid, stat.st_gid) != (uid, gid) {
        rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}

/// Opens a pidfd; here so that callers that recover a container use the same flags.
pub fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}
