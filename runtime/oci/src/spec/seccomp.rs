//! System call filters in `config.json`.

use serde::{Deserialize, Serialize};

/// System call filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seccomp {
    /// What happens to a call that no rule matches.
    pub default_action: Action,
    /// Its errno, `EPERM` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_X86_64`, which is always meant, `SCMP_ARCH_X86`, `SCMP_ARCH_X32`. Calls by interfaces that aren't named
    /// end the process, or fail with `ENOSYS` by x32's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
    /// Socket of the agent that decides for [`Action::Notify`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_path: Option<String>,
    /// What the agent is told beside the container's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener_metadata: Option<String>,
    /// Rules; the first that matches a call decides.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub syscalls: Vec<SyscallRule>,
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It goes on.
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// It fails with an errno.
    #[default]
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
    /// The process is killed.
    #[serde(rename = "SCMP_ACT_KILL_PROCESS")]
    KillProcess,
    /// The thread is killed.
    #[serde(rename = "SCMP_ACT_KILL", alias = "SCMP_ACT_KILL_THREAD")]
    KillThread,
    /// `SIGSYS`.
    #[serde(rename = "SCMP_ACT_TRAP")]
    Trap,
    /// It goes on and is logged.
    #[serde(rename = "SCMP_ACT_LOG")]
    Log,
    /// A tracer decides, which is told [`SyscallRule::errno_ret`].
    #[serde(rename = "SCMP_ACT_TRACE")]
    Trace,
    /// The agent at [`Seccomp::listener_path`] decides.
    #[serde(rename = "SCMP_ACT_NOTIFY")]
    Notify,
}

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SyscallRule {
    /// Names of system calls; ones that this architecture lacks are passed over.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// Errno for [`Action::Errno`], `EPERM` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// All must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arg {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// What it is compared with; the mask for [`Op::MaskedEq`].
    pub value: u64,
    /// What the masked argument is compared with.
    pub value_two: u64,
    /// How.
    pub op: Op,
}

/// How an argument is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Equal.
    #[default]
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    /// Not equal.
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    /// Less.
    #[serde(rename = "SCMP_CMP_LT")]
    Lt,
    /// Less or equal.
    #[serde(rename = "SCMP_CMP_LE")]
    Le,
    /// Greater or equal.
    #[serde(rename = "SCMP_CMP_GE")]
    Ge,
    /// Greater.
    #[serde(rename = "SCMP_CMP_GT")]
    Gt,
    /// Equal under a mask.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}
