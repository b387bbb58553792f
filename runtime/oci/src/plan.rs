//! The plan of a container: the configuration, validated, as the data that the child executes.

use serde::{Deserialize, Serialize};

use crate::caps::{self, Sets};
use crate::labels::Label;
use crate::options::{self, Propagation};
use crate::planned::{self, HostMount};
use crate::seccomp::{self, Insn};
use crate::spec::{Hook, IdMapping, NamespaceKind, Process, Rlimit, Spec};
use crate::{Error, affinity, labels, limits, rdt, schedule, wire};

/// Most mounts of a container: each may need a descriptor in one message, beside root and `/dev`.
const MAX_MOUNTS: usize = wire::MAX_FDS - 2;

/// What the child does: it sets a new container up or joins one, and then turns into the process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub setup: Option<Setup>,
    /// Namespaces to join, `CLONE_NEW…`; process IDs are joined by the time that there is a child.
    pub join: i32,
    pub process: ProcessPlan,
    pub hooks: Hooks,
    /// How many descriptors, at the end of those passed, the process keeps from 3 on.
    pub preserved: usize,
    /// Whether the last descriptor passed is a socket to accept the start on.
    pub listens: bool,
    /// Name of the session keyring to make.
    pub keyring: Option<String>,
    pub no_pivot: bool,
    /// Whether the child takes marks of time.
    pub timed: bool,
}

/// Programs that the child runs.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hooks {
    /// Whether the parent runs some once the mounts are made.
    pub parents: bool,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    /// The state that they are told.
    pub creating: String,
    pub created: String,
}

/// What makes a container of new namespaces, in this order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    /// Namespaces that the child makes for itself, `CLONE_NEW…`.
    pub own_namespaces: i32,
    /// Whether the mount namespace is one that others are in, too.
    pub joins_mounts: bool,
    pub mounts: planned::Mounts,
    pub root_readonly: bool,
    /// Of the root, once it is entered.
    pub propagation: Option<Propagation>,
    pub personality: Option<u32>,
    /// Lines of `/proc/self/timens_offsets`, with a new time namespace.
    pub time_offsets: Option<String>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    /// SELinux label of what covers hidden folders.
    pub mount_label: Option<String>,
    /// Path below `/proc/sys`, value.
    pub sysctl: Vec<(String, String)>,
    /// Made if absent.
    pub cwd: String,
}

/// What becomes of a process that is in its namespaces.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ProcessPlan {
    pub terminal: bool,
    /// Rows and columns.
    pub console_size: Option<(u16, u16)>,
    pub cwd: String,
    pub umask: u32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub capabilities: Sets,
    pub no_new_privileges: bool,
    pub limits: Vec<Rlimit>,
    pub seccomp: Vec<Insn>,
    pub seccomp_flags: u64,
    /// What the agent is told that decides for the filter; the socket to it is passed.
    pub notify: Option<String>,
    /// SELinux label of the session keyring, which the process's own label must be allowed to use.
    pub key_label: Option<String>,
    /// Labels of security modules for the execution.
    pub labels: Vec<Label>,
    pub args: Vec<String>,
    pub env: Vec<String>,
}

/// Validates a configuration. The descriptors that the child gets are: root, then one for each [`HostMount`]. `confined`:
/// the parent is in a user namespace.
pub(crate) fn create(spec: &Spec, confined: bool) -> Result<(Plan, Vec<HostMount>), Error> {
    check(spec)?;
    let mut host_mounts = Vec::new();
    let mount_label = labels::of_mounts(spec)?;
    let mounts = planned::mounts(spec, mount_label.as_deref(), confined, &mut host_mounts)?;
    let setup = Setup {
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        own_namespaces: own_namespaces(spec),
        joins_mounts: !spec.has_new(NamespaceKind::Mount),
        mounts,
        propagation: root_propagation(spec)?,
        personality: personality(spec)?,
        time_offsets: time_offsets(spec)?,
        root_readonly: spec.root.as_ref().is_some_and(|r| r.readonly),
        masked_paths: paths("linux.maskedPaths", &spec.linux.masked_paths)?,
        readonly_paths: paths("linux.readonlyPaths", &spec.linux.readonly_paths)?,
        mount_label,
        sysctl: sysctls(spec)?,
        cwd: spec.process.cwd.clone(),
    };
    let hooks = spec.hooks.as_ref().map(|h| Hooks {
        parents: !h.prestart.is_empty() || !h.create_runtime.is_empty(),
        create_container: h.create_container.clone(),
        start_container: h.start_container.clone(),
        ..Hooks::default()
    });
    let process = process(spec, &spec.process)?;
    let plan = Plan { setup: Some(setup), process, hooks: hooks.unwrap_or_default(), ..Plan::default() };
    Ok((plan, host_mounts))
}

/// Validates what is to run in a container that exists.
pub(crate) fn exec(spec: &Spec, p: &Process, kinds: i32) -> Result<Plan, Error> {
    Ok(Plan { join: kinds & !libc::CLONE_NEWPID, process: process(spec, p)?, ..Plan::default() })
}

/// The namespaces that a child makes for itself once it is where it belongs, `CLONE_NEW…`: a cgroup namespace is rooted
/// at its maker's cgroup, and the file system of an IPC namespace's message queues is its maker's, which must be the
/// container's root.
pub(crate) fn own_namespaces(spec: &Spec) -> i32 {
    let cgroup = if spec.has_new(NamespaceKind::Cgroup) { libc::CLONE_NEWCGROUP } else { 0 };
    let ipc = spec.has_new(NamespaceKind::Ipc) && spec.uses_user_namespace();
    cgroup | if ipc { libc::CLONE_NEWIPC } else { 0 }
}

fn process(spec: &Spec, p: &Process) -> Result<ProcessPlan, Error> {
    check_process(p)?;
    let size = p.console_size.filter(|_| p.terminal);
    let side = |n: u32| u16::try_from(n).map_err(|_| refused("process.consoleSize", format!("{n} is too large")));
    Ok(ProcessPlan {
        terminal: p.terminal,
        console_size: size.map(|s| Ok::<_, Error>((side(s.height)?, side(s.width)?))).transpose()?,
        cwd: p.cwd.clone(),
        umask: p.user.umask.unwrap_or(0o022),
        uid: p.user.uid,
        gid: p.user.gid,
        groups: p.user.additional_gids.clone(),
        capabilities: caps::sets(p.capabilities.as_ref())?,
        no_new_privileges: p.no_new_privileges,
        limits: p.rlimits.clone(),
        seccomp: spec.linux.seccomp.as_ref().map(seccomp::compile).transpose()?.unwrap_or_default(),
        seccomp_flags: spec.linux.seccomp.as_ref().map(seccomp::check).transpose()?.unwrap_or_default(),
        notify: spec.linux.seccomp.as_ref().filter(|s| seccomp::notifies(s)).map(|_| String::new()),
        key_label: p.selinux_label.clone().filter(|label| !label.is_empty()),
        labels: labels::of(p)?,
        args: p.args.clone(),
        env: p.env.clone(),
    })
}

fn check_process(process: &Process) -> Result<(), Error> {
    if process.args.first().is_none_or(String::is_empty) {
        return Err(refused("process.args", "is empty: nothing to execute".into()));
    }
    if process.args.iter().chain(&process.env).chain([&process.cwd]).any(|w| w.contains('\0')) {
        return Err(refused("process", "a word contains a NUL byte".into()));
    }
    if !process.cwd.starts_with('/') {
        return Err(refused("process.cwd", format!("{:?} isn't absolute", process.cwd)));
    }
    if process.user.additional_gids.len() > 65536 {
        return Err(refused("process.user.additionalGids", "more than 65536 groups".into()));
    }
    limits::check(&process.rlimits)?;
    affinity::of(process)?;
    schedule::check(process)
}

fn check(spec: &Spec) -> Result<(), Error> {
    if !spec.names(NamespaceKind::Mount) {
        return Err(refused("linux.namespaces", "a mount namespace other than the host's is needed".into()));
    }
    for (at, namespace) in spec.linux.namespaces.iter().enumerate() {
        if spec.linux.namespaces[..at].iter().any(|n| n.kind == namespace.kind) {
            return Err(refused("linux.namespaces", format!("{:?} is there twice", namespace.kind)));
        }
        if namespace.path.as_ref().is_some_and(|p| !p.starts_with('/') || p.contains('\0')) {
            return Err(refused("linux.namespaces", format!("path {:?} isn't absolute", namespace.path)));
        }
    }
    if (spec.hostname.is_some() || spec.domainname.is_some()) && !spec.names(NamespaceKind::Uts) {
        return Err(refused("hostname", "needs a UTS namespace other than the host's".into()));
    }
    if spec.mounts.len() > MAX_MOUNTS {
        return Err(refused("mounts", format!("more than {MAX_MOUNTS}")));
    }
    // An empty one is the library's callers'; a bundle's is checked where that is read.
    if !spec.oci_version.is_empty() && !is_known_version(&spec.oci_version) {
        return Err(refused("ociVersion", format!("{:?} isn't understood: 1.0 to 1.2 are", spec.oci_version)));
    }
    for hook in spec.hooks.iter().flat_map(crate::spec::Hooks::all) {
        if !hook.path.starts_with('/') || hook.path.contains('\0') {
            return Err(refused("hooks", format!("path {:?} isn't absolute", hook.path)));
        }
        if hook.timeout.is_some_and(|t| t <= 0) {
            return Err(refused("hooks", format!("the time-out of {} must be positive", hook.path)));
        }
    }
    spec.linux.intel_rdt.as_ref().map_or(Ok(()), rdt::check)?;
    if spec.has_new(NamespaceKind::User) {
        mapping("linux.uidMappings", &spec.linux.uid_mappings)?;
        mapping("linux.gidMappings", &spec.linux.gid_mappings)?;
    }
    Ok(())
}

/// Semantic versions of the first generation.
fn is_known_version(version: &str) -> bool {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u64>> = core.split('.').map(|n| n.parse().ok()).collect();
    matches!(numbers[..], [Some(1), Some(_), Some(_)])
}

/// How mounts reach the root from outside and leave it, once it is entered.
fn root_propagation(spec: &Spec) -> Result<Option<Propagation>, Error> {
    let word = spec.linux.rootfs_propagation.as_deref().filter(|w| !w.is_empty());
    let known = |w: &str| {
        options::propagation(w).ok_or_else(|| {
            refused("linux.rootfsPropagation", format!("{w:?} isn't private, slave, shared, unbindable"))
        })
    };
    word.map(known).transpose()
}

fn personality(spec: &Spec) -> Result<Option<u32>, Error> {
    let Some(p) = &spec.linux.personality else { return Ok(None) };
    if let Some(flag) = p.flags.first() {
        return Err(refused("linux.personality.flags", format!("{flag:?}: none are defined")));
    }
    match p.domain.as_str() {
        "LINUX" => Ok(Some(0)),
        "LINUX32" => Ok(Some(8)),
        other => Err(refused("linux.personality.domain", format!("{other:?} isn't LINUX or LINUX32"))),
    }
}

fn time_offsets(spec: &Spec) -> Result<Option<String>, Error> {
    if !spec.has_new(NamespaceKind::Time) {
        let none = spec.linux.time_offsets.is_empty();
        return if none { Ok(None) } else { Err(refused("linux.timeOffsets", "needs a new time namespace".into())) };
    }
    let mut lines = String::new();
    for (clock, offset) in &spec.linux.time_offsets {
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(refused("linux.timeOffsets", format!("{clock:?} isn't monotonic or boottime")));
        }
        lines.push_str(&format!("{clock} {} {}\n", offset.secs, offset.nanosecs));
    }
    Ok(Some(lines))
}

/// A mapping must have a root, and no more lines than the kernel takes (user_namespaces(7)).
fn mapping(field: &str, lines: &[IdMapping]) -> Result<(), Error> {
    if lines.len() > 340 {
        return Err(refused(field, "more than 340 lines".into()));
    }
    if lines.iter().any(|l| l.size == 0 || l.container_id.checked_add(l.size).is_none()) {
        return Err(refused(field, "a line is empty or reaches beyond 32 bits".into()));
    }
    if lines.iter().any(|l| l.host_id.checked_add(l.size).is_none()) {
        return Err(refused(field, "a line reaches beyond 32 bits on the host".into()));
    }
    to_host(lines, 0).map(drop).ok_or_else(|| refused(field, "ID 0 isn't mapped".into()))
}

/// The host's number for one of the container's.
pub(crate) fn to_host(lines: &[IdMapping], id: u32) -> Option<u32> {
    let line = lines.iter().find(|l| id.checked_sub(l.container_id).is_some_and(|offset| offset < l.size))?;
    Some(line.host_id + (id - line.container_id))
}

/// Paths below the root: relative ones are, too, and `..` is taken by the words. What a symbolic link in the image
/// does with them is the resolver's care.
fn paths(field: &str, paths: &[String]) -> Result<Vec<String>, Error> {
    paths.iter().map(|p| clean(field, p)).collect()
}

pub(crate) fn clean(field: &str, path: &str) -> Result<String, Error> {
    if path.is_empty() || path.contains('\0') {
        return Err(refused(field, format!("{path:?} is no path")));
    }
    let mut out: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(out.pop()),
            other => out.push(other),
        }
    }
    Ok(format!("/{}", out.join("/")))
}

/// Kernel parameters that belong to one of the container's own namespaces; others would change the host.
fn sysctls(spec: &Spec) -> Result<Vec<(String, String)>, Error> {
    let mut out = Vec::new();
    for (given, value) in &spec.linux.sysctl {
        let refuse = |why: &str| Err(refused("linux.sysctl", format!("{given} {why}")));
        let Some(path) = sysctl_path(given) else { return refuse("isn't a name") };
        let name = &path.replace('.', "\0").replace('/', ".");
        let ipc = name.starts_with("fs.mqueue.")
            || ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"]
                .contains(&name.as_str())
            || ["kernel.shmmni", "kernel.shm_rmid_forced"].contains(&name.as_str());
        let namespace = match name.as_str() {
            n if n.starts_with("net.") => NamespaceKind::Network,
            "kernel.hostname" => return refuse("is set by the configuration's hostname"),
            "kernel.domainname" => NamespaceKind::Uts,
            _ if ipc => NamespaceKind::Ipc,
            _ => return refuse("isn't a parameter of a namespace"),
        };
        if !spec.names(namespace) {
            return refuse("needs a namespace of its own, or the host's would change");
        }
        out.push((path, value.clone()));
    }
    Ok(out)
}

/// The path below `/proc/sys`. As sysctl(8) has it, the first separator, dot or slash, is the one; the other stands for
/// itself turned into it.
fn sysctl_path(name: &str) -> Option<String> {
    let first = name.find(['.', '/'])?;
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let path: String = if name[first..].starts_with('.') { name.chars().map(swap).collect() } else { name.into() };
    let good = |c: &str| !matches!(c, "" | "." | "..") && !c.contains('\0');
    path.split('/').all(good).then_some(path)
}

pub(crate) fn refused(field: &str, reason: String) -> Error {
    Error::Config { field: field.into(), reason }
}
