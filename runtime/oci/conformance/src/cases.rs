//! All cases.
//!
//! - `apparmor`: `process.apparmorProfile`, in force
//! - `cgroups`: `linux.cgroupsPath` and `linux.resources`, in cgroup v2; `update`, `events`
//! - `commands`: what engines ask of a runtime's command line beyond the specification
//! - `credentials`: capabilities, no_new_privs, terminal
//! - `devices`: device nodes, and which of them may be used
//! - `exec`: further processes in a running container, pausing, listing processes
//! - `features`: `features`: what the runtime says of itself
//! - `hooks`: `hooks`: order, place, input, failure, time-out
//! - `lifecycle`: create, start, state, kill, delete, and their errors
//! - `mount_options`: their options: flags, what a bind mount can't have, remounts
//! - `mounts`: `mounts`: order, kinds, binds, destinations
//! - `namespaces`: `linux.namespaces`, user mappings, host name, time offsets
//! - `notify`: a service's readiness, passed on
//! - `process`: what runs, and as whom: `process`
//! - `root`: the root file system, masked and read-only paths, kernel parameters
//! - `seccomp`: `linux.seccomp`
//! - `security`: ways out of a container that others had open
//! - `selinux`: `process.selinuxLabel`, `linux.mountLabel`, in force

mod apparmor;
mod cgroups;
mod commands;
mod credentials;
mod devices;
mod exec;
mod features;
mod hooks;
mod lifecycle;
mod mount_options;
mod mounts;
mod namespaces;
mod notify;
mod process;
mod root;
mod seccomp;
mod security;
mod selinux;

use crate::case::Case;

pub(crate) use namespaces::hold as hold_namespaces;

/// All of them, by topic.
pub(crate) fn all() -> Vec<Case> {
    [
        lifecycle::CASES,
        commands::CASES,
        process::CASES,
        credentials::CASES,
        root::CASES,
        mounts::CASES,
        mount_options::CASES,
        namespaces::CASES,
        notify::CASES,
        devices::CASES,
        seccomp::CASES,
        hooks::CASES,
        cgroups::CASES,
        exec::CASES,
        features::CASES,
        security::CASES,
        apparmor::CASES,
        selinux::CASES,
    ]
    .concat()
}
