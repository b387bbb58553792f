//! What is kept on disk of each container: what was asked for (`config.json`) and what became of it (`state.json`).
//!
//! Fields are only ever added, each with a default, so that releases before and after can read each other's files.

use std::path::Path;

use bollard_stubs::models::ContainerCreateBody;
use keel_durable::{self as durable, Stored};
use keel_net::Sandbox;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Doing, Error};

/// Longest file that is read back.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Writes one of these files, durably.
pub fn save<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    durable::write_json(path, value).doing(|| format!("writing {}", path.display()))
}

/// Reads one of these files; what is torn is moved aside.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Stored<T>, Error> {
    durable::read_json(path, MAX_BYTES).doing(|| format!("reading {}", path.display()))
}

/// What was asked for; never changes but for the name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// The container's ID.
    pub id: String,
    /// Its name, without a slash.
    pub name: String,
    /// When it was created, nanoseconds since the Unix epoch.
    pub created_unix_ns: u64,
    /// The image's ID.
    pub image_id: String,
    /// The request, with the image's settings filled in.
    pub body: ContainerCreateBody,
    /// First of the 65536 host IDs that its user namespace maps; `None`: no user namespace of its own.
    #[serde(default)]
    pub uid_base: Option<u32>,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Where it is in its life.
    pub phase: Phase,
    /// The first process while it runs, in the host's namespace.
    pub pid: Option<u32>,
    /// The boot in which it was started last.
    pub boot_id: String,
    /// Exit code of the last run.
    pub exit_code: i32,
    /// Why it couldn't be started.
    pub error: String,
    /// When it was started last, milliseconds since the Unix epoch.
    pub started_unix_ms: Option<u64>,
    /// When it ended last, milliseconds since the Unix epoch.
    pub finished_unix_ms: Option<u64>,
    /// How often its restart policy started it since a user did.
    pub restart_count: u32,
    /// A user stopped it, so `unless-stopped` leaves it alone.
    pub user_stopped: bool,
    /// The kernel killed one of its processes for lack of memory.
    pub oom_killed: bool,
    /// It runs, but its processes are frozen.
    pub paused: bool,
    /// Its places in networks while it runs.
    pub networks: Option<Sandbox>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Never started.
    #[default]
    Created,
    /// Being started: nothing that is found of it after a crash is worth keeping.
    Starting,
    /// Runs, or is about to be released to.
    Running,
    /// Ended; its restart policy starts it again after a pause.
    Restarting,
    /// Ended.
    Exited,
    /// Being removed; what is left of it after a crash is removed, too.
    Removing,
}

impl State {
    /// Whether there is a process.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }
}
