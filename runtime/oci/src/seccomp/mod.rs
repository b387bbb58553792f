//! System call filters: the default one, and the compiler of filters.
//!
//! - [`default`](default_profile): the filter of an ordinary container
//! - `filter`: from the configuration's rules to the kernel's classic BPF

mod default;
mod filter;

use crate::Error;
use crate::spec::{Action, Seccomp};

pub use default::default_profile;
pub(crate) use filter::{Insn, compile};

/// Actions that are understood.
pub(crate) const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
/// Comparisons that are understood.
pub(crate) const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];
/// Architectures that filters are made for. The first is always among a filter's.
pub(crate) const ARCHITECTURES: [&str; 3] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"];
/// Flags and their bits (seccomp(2)).
const FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5),
];

/// Flags that are understood.
pub(crate) fn flags() -> [&'static str; 4] {
    FLAGS.map(|(name, _)| name)
}

/// The bits of a profile's flags. Checks, too, what concerns the agent that is notified: there must be one, and the
/// message that tells it of the filter is sent under the filter.
pub(crate) fn check(profile: &Seccomp) -> Result<u64, Error> {
    let refused = |reason: String| Error::Config { field: "linux.seccomp".into(), reason };
    let bit = |name: &String| FLAGS.iter().find(|(known, _)| known == name).map(|(_, bit)| *bit);
    let flags = profile.flags.iter().try_fold(0, |bits, name| {
        bit(name).map(|b| bits | b).ok_or_else(|| refused(format!("flag {name:?} isn't known")))
    })?;
    if profile.default_action == Action::Notify {
        return Err(refused("SCMP_ACT_NOTIFY can't be the default action".into()));
    }
    let notifying = || profile.syscalls.iter().filter(|r| r.action == Action::Notify);
    if notifying().next().is_some() && profile.listener_path.as_ref().is_none_or(String::is_empty) {
        return Err(refused("SCMP_ACT_NOTIFY needs a listenerPath".into()));
    }
    if notifying().any(|r| r.names.iter().any(|n| n == "sendmsg")) {
        return Err(refused("SCMP_ACT_NOTIFY can't be for sendmsg, which the runtime makes itself".into()));
    }
    // With one thread there is nobody to synchronise with, and it excludes a listener.
    Ok(flags & !1)
}

/// Whether an agent is notified.
pub(crate) fn notifies(profile: &Seccomp) -> bool {
    profile.syscalls.iter().any(|r| r.action == Action::Notify)
}
