//! One container from an OCI runtime configuration: namespaces, cgroup, mounts, credentials, seccomp.
//!
//! - `affinity`: the processors of a further process
//! - [`caps`]: capability names and sets
//! - [`cgroup`]: cgroup v2 folders, their limits and processes
//! - [`command`]: the command line
//! - [`create`](fn@create): from a configuration to a process that waits to be started
//! - `created`: a process that waits to be started
//! - [`defaults`]: what an ordinary container gets: mounts, masked paths, capabilities
//! - `device_filter`: the eBPF program that guards device nodes
//! - [`exec`](fn@exec): a further process in a running container
//! - [`hooks`]: programs that a container's life calls
//! - `host`: mounts that the parent makes for the child
//! - `init`: the first process, up to the execution of its program
//! - `planned`: mounts and devices, as part of it
//! - `procfs`: files of the kernel's own proc
//! - `program`: what is executed
//! - `inroot`: paths that can't lead out of the container's root
//! - `copyup`: what a mount covers, copied into it
//! - `labels`: labels of security modules
//! - `limits`: resource limits
//! - `mounts`: mounts that the child makes
//! - `options`: mount(8)'s words
//! - `plan`: the configuration, validated, as data
//! - `rdt`: classes of cache and memory bandwidth
//! - `schedule`: scheduling and I/O priority
//! - [`seccomp`]: the default system call filter, and the compiler of filters
//! - [`spec`]: `config.json` as types
//! - `signals`: signals by name
//! - `steps`: where time goes
//! - `sys`: system calls that rustix lacks
//! - `terminal`: pseudo terminals of the container's own devpts
//! - `userns`: user namespaces for mappings
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

mod affinity;
pub mod caps;
pub mod cgroup;
pub mod command;
mod copyup;
mod create;
mod created;
pub mod defaults;
mod device_filter;
mod error;
mod exec;
pub mod hooks;
mod host;
mod init;
mod inroot;
mod labels;
mod limits;
mod mounts;
mod options;
mod plan;
mod planned;
mod procfs;
mod program;
mod rdt;
mod schedule;
pub mod seccomp;
mod signals;
pub mod spec;
mod steps;
mod sys;
mod syscalls;
mod terminal;
mod userns;
mod wire;

pub use create::{Create, Extras, Parent, create, create_with, open_pidfd};
pub use created::{Created, start_at};
pub use error::Error;
pub use exec::{Exec, exec, exec_with};
pub use init::init_main;
pub(crate) use sys::copy_descriptor;

/// Version of the runtime specification that this implements.
pub const OCI_VERSION: &str = "1.2.1";
