//! The lifecycles of containers: create, start, stop, restart policies, logs, and recovery after a restart.
//! Blocking and thread-safe; the API process calls it from its worker threads.
//!
//! - [`Engine`] (`engine`): its start and what it knows; its verbs are in `create`, `start`, `stop`, `wait`, `remove`,
//!   `attach`, `list` (`filter`), `inspect`, `pause`, `top`, `stats`, `events`, `prune`, `update`, `archive` (`cp`, `export`, `diff`),
//!   `exec`, `commit`, `terminal` (`resize`)
//! - `recover`: what it does after a restart of this program or of the host
//! - `watch`: the threads that take note of exits and do what is scheduled; `exit`, `schedule`: what they do
//! - `tell`: what listeners of `events` are told
//! - `expected`: which containers should run
//! - `restart`, `health`: restart policies and health checks, pure; `probe`: runs the latter
//! - `networks`: networks are made, shown and removed; `joining`: containers enter and leave them; `endpoints`: their
//!   places in Docker's words
//! - `volumes`: volumes, and containers' use of them
//! - [`reaper`]: the first process of containers with `--init`
//! - `sharing`: what a container shares with others beside networks
//! - `declared`: what the machine config declares is made so
//! - `plan`: from a request to an OCI configuration, pure
//! - `parent`: PID 1, or this process itself, as the containers' parent
//! - `container`, `disk`: a container in memory and on disk
//! - `stdio` (`transit`), `stdin`, `log`: its streams
//! - `network`: the containers' network, set up when it is first wanted
//! - [`inside`]: files of a container, from outside; builds use it, too
//! - `processes`: its processes; `cgroups`: where its cgroup is
//! - `cancel`, `output`, `error`: what callers hold
//! - `show`: its state in Docker's words
//! - `clock`, `files`, `id`, `signal`: small things
#![forbid(unsafe_code)]

mod archive;
mod attach;
mod cancel;
mod cgroups;
mod clock;
mod commit;
mod container;
mod create;
mod declared;
mod disk;
mod endpoints;
mod engine;
mod error;
pub mod events;
mod exec;
mod exit;
mod expected;
mod files;
mod filter;
mod health;
mod id;
pub mod inside;
mod inspect;
mod joining;
mod list;
mod log;
mod network;
mod networks;
mod output;
mod parent;
mod pause;
mod plan;
mod probe;
mod processes;
mod prune;
pub mod reaper;
mod recover;
mod remove;
mod restart;
mod schedule;
mod sharing;
mod show;
mod signal;
mod start;
mod stats;
mod stdin;
mod stdio;
mod stop;
mod tell;
mod terminal;
mod top;
mod transit;
mod update;
mod volumes;
mod wait;
mod watch;

pub use archive::{FileChange, find_owner};
pub use cancel::Cancel;
pub use declared::drive::auth_of;
pub use engine::{Counts, Engine, Options};
pub use error::Error;
pub use exec::{ExecInfo, ExecStreams};
pub use inside::place::PathStat;
pub use list::ListWant;
pub use output::{
    AttachOptions, Attachment, ExecReader, Frame, FrameSource, LogOptions, LogReader, StdinWriter, Stream,
};
pub use prune::{PruneWant, Pruned};
pub use stats::{Sample, total_memory_bytes};
pub use wait::{WaitCondition, Waiter};

#[cfg(test)]
mod tests;
