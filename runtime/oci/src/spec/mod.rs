//! The OCI runtime specification's `config.json` (v1.2): the parts that are acted on. Unknown fields are tolerated,
//! as the specification asks; values that are understood and wrong are refused by [`crate::create`].

mod linux;
mod resources;
mod seccomp;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use linux::{Device, IdMapping, IntelRdt, Linux, Namespace, NamespaceKind, Personality, TimeOffset};
pub use resources::{
    BlockIo, Cpu, DeviceRule, HugepageLimit, Memory, NetworkPriority, NetworkResources, Pids, RdmaLimit, Resources,
    ThrottleDevice, WeightDevice,
};
pub use seccomp::{Action, Arg, Op, Seccomp, SyscallRule};

/// `config.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification, `1.0.0` to `1.2.x`.
    pub oci_version: String,
    /// The root file system.
    pub root: Option<Root>,
    /// Mounts, done in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// What runs.
    pub process: Process,
    /// Host name, where there is a UTS namespace of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// Programs of the host's and the container's that its life calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Linux's part.
    pub linux: Linux,
    /// Anything, for the caller.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The root file system.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Path, relative to the bundle. Not used by [`crate::create`], which takes a mount.
    pub path: String,
    /// Whether it is read-only inside.
    pub readonly: bool,
}

/// One mount.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// Absolute path inside the container.
    pub destination: String,
    /// File system type: `proc`, `sysfs`, `tmpfs`, `devpts`, `mqueue`, `cgroup`, `cgroup2`; `bind` (or an option
    /// `bind`/`rbind`) for a part of the host.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Host path of a bind mount.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// mount(8)'s words: `ro`, `nosuid`, `nodev`, `noexec`, `bind`, `rbind`, `rro`, `idmap`, propagation,
    /// and what the file system itself understands (`size=64k`, `mode=755`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// With `idmap`, a user mapping of its own; none: the container's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Likewise for groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// What runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as, in the container's numbers.
    pub user: User,
    /// Program and arguments. A name without `/` is looked up in `PATH` of `env`, inside the root.
    pub args: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working folder; made if absent.
    pub cwd: String,
    /// Capability sets; `None`: all empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// Whether `PR_SET_NO_NEW_PRIVS` is set.
    pub no_new_privileges: bool,
    /// `/proc/self/oom_score_adj`, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// How it is scheduled (sched_setattr(2)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// Class and priority of its input and output (ioprio_set(2)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// Processors that `exec` makes it on.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
    /// AppArmor profile that its program is executed under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor_profile: Option<String>,
    /// SELinux label that its program is executed with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selinux_label: Option<String>,
}

/// How a process is scheduled (sched_setattr(2)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Scheduler {
    /// `SCHED_OTHER`, `SCHED_FIFO`, `SCHED_RR`, `SCHED_BATCH`, `SCHED_ISO`, `SCHED_IDLE`, `SCHED_DEADLINE`.
    pub policy: String,
    /// Nice value, -20 to 19.
    pub nice: i32,
    /// Static priority, 1 to 99, of the real-time policies.
    pub priority: i32,
    /// `SCHED_FLAG_…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Nanoseconds in each period, for `SCHED_DEADLINE`.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// Input and output priority (ioprio_set(2)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_RT`, `IOPRIO_CLASS_BE`, `IOPRIO_CLASS_IDLE`.
    pub class: String,
    /// 0 (highest) to 7.
    pub priority: i32,
}

/// Processors of a further process in a container, as lists: `0-3,7`. Not for a container's first process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecCpuAffinity {
    /// Where the runtime makes it, before it is in the container's cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    /// Where it runs once it is there; none or empty: where the kernel leaves it.
    #[serde(rename = "final", skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// Programs that a container's life calls, in the specification's order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// After the namespaces are made, in the host's (deprecated for the following).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// After `prestart`, likewise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before its root is entered.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// In the container, before its program is executed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// On the host, after that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// On the host, after the container is deleted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// A program that is told the container's state on its standard input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hook {
    /// Absolute path.
    pub path: String,
    /// Its arguments, the first of which is its name.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Seconds after which it is killed; `None`: never.
    pub timeout: Option<i64>,
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

/// Who a process runs as, in the container's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// umask, 022 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Supplementary groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// The five capability sets, `CAP_…` each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    /// Bounding set.
    pub bounding: Vec<String>,
    /// Effective set.
    pub effective: Vec<String>,
    /// Inheritable set.
    pub inheritable: Vec<String>,
    /// Permitted set.
    pub permitted: Vec<String>,
    /// Ambient set.
    pub ambient: Vec<String>,
}

/// One resource limit (setrlimit(2)).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Hard limit; `u64::MAX`: none.
    pub hard: u64,
    /// Soft limit.
    pub soft: u64,
}

impl Hooks {
    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Hook> {
        let lists = [&self.prestart, &self.create_runtime, &self.create_container, &self.start_container];
        lists.into_iter().chain([&self.poststart, &self.poststop]).flatten()
    }
}

impl Spec {
    /// Whether it has a namespace of this kind, new or joined, by its own saying.
    pub fn names(&self, kind: NamespaceKind) -> bool {
        self.linux.namespaces.iter().any(|n| n.kind == kind)
    }

    /// Whether it is in a user namespace other than the host's, made for it or joined.
    pub fn uses_user_namespace(&self) -> bool {
        self.names(NamespaceKind::User)
    }

    /// Whether a new namespace of this kind is asked for.
    pub fn has_new(&self, kind: NamespaceKind) -> bool {
        self.linux.namespaces.iter().any(|n| n.kind == kind && n.path.is_none())
    }
}
