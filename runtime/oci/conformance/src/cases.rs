//! All cases.
//!
//! - `commands`: what engines ask of a runtime's command line beyond the specification
//! - `credentials`: capabilities, no_new_privs, terminal
//! - `exec`: further processes in a running container, pausing, listing processes
//! - `lifecycle`: create, start, state, kill, delete, and their errors
//! - `mounts`: `mounts`: order, kinds, options, destinations
//! - `namespaces`: `linux.namespaces`, user mappings, host name, time offsets
//! - `process`: what runs, and as whom: `process`
//! - `root`: the root file system, masked and read-only paths, kernel parameters

mod commands;
mod credentials;
mod exec;
mod lifecycle;
mod mounts;
mod namespaces;
mod process;
mod root;

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
        namespaces::CASES,
        exec::CASES,
    ]
    .concat()
}
