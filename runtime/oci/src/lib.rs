//! One container from an OCI runtime configuration: namespaces, cgroup, mounts, credentials, seccomp.
//!
//! - [`caps`]: capability names and sets
//! - [`cgroup`]: cgroup v2 folders, their limits and processes
//! - [`create`](fn@create): from a configuration to a process that waits to be started
//! - `created`: a process that waits to be started
//! - [`defaults`]: what an ordinary container gets: mounts, masked paths, capabilities
//! - `device_filter`: the eBPF program that guards device nodes
//! - [`exec`](fn@exec): a further process in a running container
//! - `host`: mounts that the parent makes for the child
//! - `init`: the first process, up to the execution of its program
//! - `inroot`: paths that can't lead out of the container's root
//! - `mounts`: mounts that the child makes
//! - `plan`: the configuration, validated, as data
//! - [`seccomp`]: the default system call filter, and the compiler of filters
//! - [`spec`]: `config.json` as types
//! - `sys`: system calls that rustix lacks
//! - `terminal`: pseudo terminals of the container's own devpts
//! - `wire`: messages between parent and child
//!
//! A container's life, as the engine leads it:
//!
//! ```text
//! let mut created = create(Create { id, spec, rootfs, stdin, stdout, stderr, cgroup, parent, init })?;
//! created.take_terminal();      // Some(master) with process.terminal: then stdin, stdout, stderr are closed unused
//! created.pidfd();              // to be watched, adopted, kept
//! created.start()?;             // the program runs; or dropped: everything is undone
//! let further = exec(Exec { id, spec, container: pidfd, process, stdin, stdout, stderr, cgroup, parent, init })?;
//! further.take_terminal();      // as above, made in the container's devpts, of size process.console_size
//! further.start()?;
//! ```
#![deny(unsafe_code)]

pub mod caps;
pub mod cgroup;
mod create;
mod created;
pub mod defaults;
mod device_filter;
mod error;
mod exec;
mod host;
mod init;
mod inroot;
mod mounts;
mod plan;
pub mod seccomp;
pub mod spec;
mod sys;
mod syscalls;
mod terminal;
mod wire;

pub use create::{Create, Extras, Parent, create, create_with, open_pidfd};
pub use created::Created;
pub use error::Error;
pub use exec::{Exec, exec, exec_with};
pub use init::init_main;
