//! One container from an OCI runtime configuration: namespaces, cgroup, mounts, credentials, seccomp.
//!
//! - [`caps`]: capability names and sets
//! - [`cgroup`]: cgroup v2 folders, their limits and processes
//! - [`create`](fn@create): from a configuration to a process that waits to be started
//! - [`defaults`]: what an ordinary container gets: mounts, masked paths, capabilities
//! - `device_filter`: the eBPF program that guards device nodes
//! - `host`: mounts that the parent makes for the child
//! - `init`: the first process, up to the execution of its program
//! - `inroot`: paths that can't lead out of the container's root
//! - `mounts`: mounts that the child makes
//! - `plan`: the configuration, validated, as data
//! - [`seccomp`]: the default system call filter, and the compiler of filters
//! - [`spec`]: `config.json` as types
//! - `sys`: system calls that rustix lacks
//! - `wire`: messages between parent and child
#![deny(unsafe_code)]

pub mod caps;
pub mod cgroup;
mod create;
pub mod defaults;
mod device_filter;
mod error;
mod host;
mod init;
mod inroot;
mod mounts;
mod plan;
pub mod seccomp;
pub mod spec;
mod sys;
mod syscalls;
mod wire;

pub use create::{Create, Created, Parent, create, open_pidfd};
pub use error::Error;
pub use init::init_main;
