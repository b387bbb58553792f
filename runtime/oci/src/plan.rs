//! The plan of a container: the configuration, validated, as the data that the child executes.

use serde::{Deserialize, Serialize};

use crate::caps::{self, Sets};
use crate::seccomp::{self, Insn};
use crate::spec::{IdMapping, Mount, NamespaceKind, Process, Spec};
use crate::{Error, wire};

/// Most mounts of a container: each may need a descriptor in one message, beside root and `/dev`.
const MAX_MOUNTS: usize = wire::MAX_FDS - 2;

/// `MOUNT_ATTR_…` (mount_setattr(2)).
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = 0x1;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
    pub(crate) const ATIME: u64 = 0x70;
    pub(crate) const NOATIME: u64 = 0x10;
    pub(crate) const STRICTATIME: u64 = 0x20;
    pub(crate) const NODIRATIME: u64 = 0x80;
    pub(crate) const IDMAP: u64 = 0x10_0000;
    pub(crate) const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// What the child does: it sets a new container up or joins one, and then turns into the process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub setup: Option<Setup>,
    /// Namespaces to join, `CLONE_NEW…`; process IDs are joined by the time that there is a child.
    pub join: i32,
    pub process: ProcessPlan,
}

/// What makes a container of new namespaces, in this order.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Setup {
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub new_cgroup_ns: bool,
    pub mounts: Vec<PlannedMount>,
    pub root_readonly: bool,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
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
    pub seccomp: Vec<Insn>,
    pub args: Vec<String>,
    pub env: Vec<String>,
}

/// One mount of the child's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlannedMount {
    pub destination: String,
    pub what: What,
    pub attributes: u64,
    /// `MS_PRIVATE`, `MS_SLAVE` …; 0: left as it is.
    pub propagation: u64,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// A new file system of a namespace of the container.
    FileSystem { kind: String, options: Vec<(String, Option<String>)> },
    /// A mount that the parent made: its place among the descriptors, and whether it is a file.
    Passed { index: usize, file: bool },
}

/// A mount that the parent makes, for [`What::Passed`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HostMount {
    /// A part of the host's tree.
    Bind { source: String, recursive: bool, attributes: u64, recursive_attributes: bool, idmap: bool },
    /// `/dev`, with device nodes.
    Dev { options: Vec<(String, Option<String>)>, attributes: u64 },
}

/// mount(8)'s words, sorted.
#[derive(Debug, Default)]
struct Options {
    bind: bool,
    recursive: bool,
    attributes: u64,
    recursive_attributes: bool,
    idmap: bool,
    propagation: u64,
    data: Vec<(String, Option<String>)>,
}

/// Validates a configuration. The descriptors that the child gets are: root, then one for each [`HostMount`].
pub(crate) fn create(spec: &Spec) -> Result<(Plan, Vec<HostMount>), Error> {
    check(spec)?;
    let mut host_mounts = Vec::new();
    let mounts = spec.mounts.iter().map(|m| mount(spec, m, &mut host_mounts)).collect::<Result<Vec<_>, _>>()?;
    let setup = Setup {
        hostname: spec.hostname.clone(),
        domainname: spec.domainname.clone(),
        new_cgroup_ns: spec.has_new(NamespaceKind::Cgroup),
        mounts,
        root_readonly: spec.root.as_ref().is_some_and(|r| r.readonly),
        masked_paths: paths("linux.maskedPaths", &spec.linux.masked_paths)?,
        readonly_paths: paths("linux.readonlyPaths", &spec.linux.readonly_paths)?,
        sysctl: sysctls(spec)?,
        cwd: spec.process.cwd.clone(),
    };
    Ok((Plan { setup: Some(setup), join: 0, process: process(spec, &spec.process)? }, host_mounts))
}

/// Validates what is to run in a container that exists.
pub(crate) fn exec(spec: &Spec, p: &Process, kinds: i32) -> Result<Plan, Error> {
    Ok(Plan { setup: None, join: kinds & !libc::CLONE_NEWPID, process: process(spec, p)? })
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
        seccomp: spec.linux.seccomp.as_ref().map(seccomp::compile).transpose()?.unwrap_or_default(),
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
    Ok(())
}

fn check(spec: &Spec) -> Result<(), Error> {
    if !spec.has_new(NamespaceKind::Mount) {
        return Err(refused("linux.namespaces", "a mount namespace of its own is needed".into()));
    }
    if spec.linux.namespaces.iter().any(|n| n.kind == NamespaceKind::User && n.path.is_some()) {
        return Err(refused("linux.namespaces", "joining a user namespace isn't supported yet".into()));
    }
    if (spec.hostname.is_some() || spec.domainname.is_some()) && !spec.has_new(NamespaceKind::Uts) {
        return Err(refused("hostname", "needs a UTS namespace of its own".into()));
    }
    if spec.mounts.len() > MAX_MOUNTS {
        return Err(refused("mounts", format!("more than {MAX_MOUNTS}")));
    }
    if !matches!(spec.linux.rootfs_propagation.as_deref(), None | Some("" | "private" | "rprivate")) {
        return Err(refused("linux.rootfsPropagation", "only private is supported yet".into()));
    }
    if spec.has_new(NamespaceKind::User) {
        mapping("linux.uidMappings", &spec.linux.uid_mappings)?;
        mapping("linux.gidMappings", &spec.linux.gid_mappings)?;
    }
    Ok(())
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

fn mount(spec: &Spec, m: &Mount, host_mounts: &mut Vec<HostMount>) -> Result<PlannedMount, Error> {
    let field = |reason: String| refused(&format!("mounts: {:?}", m.destination), reason);
    let destination = paths("mounts", std::slice::from_ref(&m.destination))?.remove(0);
    let options = options(&m.options);
    let kind = m.kind.as_deref().unwrap_or(if options.bind { "bind" } else { "" });
    let own = |ns| spec.has_new(ns) || !spec.has_new(NamespaceKind::User);
    let mut passed = |host_mount: HostMount| {
        host_mounts.push(host_mount);
        // Descriptor 0 is the root; whether it is a file is known when it is open.
        What::Passed { index: host_mounts.len(), file: false }
    };
    let bind = |source: &str, recursive, attributes, recursive_attributes| HostMount::Bind {
        source: source.into(),
        recursive,
        attributes,
        recursive_attributes,
        idmap: options.idmap,
    };
    let what = match kind {
        "bind" | "none" if options.bind || kind == "bind" => {
            let source = m.source.as_deref().filter(|s| s.starts_with('/') && !s.contains('\0'));
            let source = source.ok_or_else(|| field("the source of a bind mount must be an absolute path".into()))?;
            passed(bind(source, options.recursive, options.attributes, options.recursive_attributes))
        }
        // With a user namespace, the kernel lets these be mounted only over namespaces that belong to it.
        "sysfs" if !own(NamespaceKind::Network) => passed(bind("/sys", true, options.attributes | attr::RDONLY, true)),
        "proc" if !own(NamespaceKind::Pid) => passed(bind("/proc", true, options.attributes, false)),
        "mqueue" if !own(NamespaceKind::Ipc) => passed(bind("/dev/mqueue", false, options.attributes, false)),
        "tmpfs" if destination == "/dev" => {
            passed(HostMount::Dev { options: options.data, attributes: options.attributes & !attr::NODEV })
        }
        "cgroup" | "cgroup2" => What::FileSystem { kind: "cgroup2".into(), options: vec![] },
        "proc" | "sysfs" | "tmpfs" | "devpts" | "mqueue" => {
            // devpts is always a new instance since Linux 4.7.
            let data = options.data.into_iter().filter(|(k, _)| k != "newinstance").collect();
            What::FileSystem { kind: kind.into(), options: data }
        }
        _ => return Err(field(format!("file system type {kind:?} isn't supported"))),
    };
    Ok(PlannedMount { destination, what, attributes: options.attributes, propagation: options.propagation })
}

fn options(words: &[String]) -> Options {
    let mut o = Options::default();
    for word in words {
        let (set, clear) = match word.as_str() {
            "ro" => (attr::RDONLY, 0),
            "rro" => {
                o.recursive_attributes = true;
                (attr::RDONLY, 0)
            }
            "rw" => (0, attr::RDONLY),
            "nosuid" => (attr::NOSUID, 0),
            "suid" => (0, attr::NOSUID),
            "nodev" => (attr::NODEV, 0),
            "dev" => (0, attr::NODEV),
            "noexec" => (attr::NOEXEC, 0),
            "exec" => (0, attr::NOEXEC),
            "noatime" => (attr::NOATIME, attr::ATIME),
            "strictatime" => (attr::STRICTATIME, attr::ATIME),
            "relatime" | "atime" => (0, attr::ATIME),
            "nodiratime" => (attr::NODIRATIME, 0),
            "nosymfollow" => (attr::NOSYMFOLLOW, 0),
            "bind" => {
                o.bind = true;
                (0, 0)
            }
            "rbind" => {
                (o.bind, o.recursive) = (true, true);
                (0, 0)
            }
            "idmap" | "ridmap" => {
                o.idmap = true;
                (0, 0)
            }
            "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" | "unbindable" | "runbindable" => {
                o.propagation = match word.trim_start_matches('r') {
                    "private" => libc::MS_PRIVATE,
                    "slave" => libc::MS_SLAVE,
                    "shared" => libc::MS_SHARED,
                    _ => libc::MS_UNBINDABLE,
                };
                (0, 0)
            }
            "defaults" | "async" | "nofail" | "" => (0, 0),
            other => {
                let (key, value) = other.split_once('=').map_or((other, None), |(k, v)| (k, Some(v.to_owned())));
                o.data.push((key.into(), value));
                (0, 0)
            }
        };
        o.attributes = (o.attributes & !clear) | set;
    }
    o
}

/// Absolute paths without `..`: what a symbolic link in the image does with them is the resolver's care.
fn paths(field: &str, paths: &[String]) -> Result<Vec<String>, Error> {
    for path in paths {
        if !path.starts_with('/') || path.contains('\0') || path.split('/').any(|c| c == "..") {
            return Err(refused(field, format!("{path:?} must be absolute, without \"..\"")));
        }
    }
    Ok(paths.to_vec())
}

/// Kernel parameters that belong to one of the container's own namespaces; others would change the host.
fn sysctls(spec: &Spec) -> Result<Vec<(String, String)>, Error> {
    let mut out = Vec::new();
    for (name, value) in &spec.linux.sysctl {
        let refuse = |why: &str| Err(refused("linux.sysctl", format!("{name} {why}")));
        let ipc = name.starts_with("fs.mqueue.")
            || ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall", "kernel.shmmax"]
                .contains(&name.as_str())
            || ["kernel.shmmni", "kernel.shm_rmid_forced"].contains(&name.as_str());
        let namespace = match name.as_str() {
            n if n.starts_with("net.") => NamespaceKind::Network,
            "kernel.hostname" | "kernel.domainname" => NamespaceKind::Uts,
            _ if ipc => NamespaceKind::Ipc,
            _ => return refuse("isn't a parameter of a namespace"),
        };
        if !spec.has_new(namespace) {
            return refuse("needs a namespace of its own, or the host's would change");
        }
        if name.contains(['/', '\0']) || name.split('.').any(str::is_empty) {
            return refuse("isn't a name");
        }
        out.push((name.replace('.', "/"), value.clone()));
    }
    Ok(out)
}

pub(crate) fn refused(field: &str, reason: String) -> Error {
    Error::Config { field: field.into(), reason }
}
