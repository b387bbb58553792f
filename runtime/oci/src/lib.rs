//! One container from an OCI runtime configuration: namespaces, cgroup, mounts, credentials, seccomp.
//!
//! - [`spec`]: `config.json` as types
//! - [`create`](fn@create): from a configuration to a process that waits to be started
//! - [`cgroup`]: cgroup v2 folders, their limits and processes
//! - [`defaults`]: what an ordinary container gets: mounts, masked paths, capabilities
//! - [`seccomp`]: the default system call filter, and the compiler of filters
#![deny(unsafe_code)]


pub mod cgroup;
mod create;
pub mod defaults;

mod error;
mod init;



pub mod seccomp;
pub mod spec;




pub use create::{Create, Created, Parent, create};
pub use error::Error;
pub use init::init_main;
