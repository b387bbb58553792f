//! What a host does about updates by itself.

use serde::{Deserialize, Serialize};

use crate::release::Version;

/// What a host does about updates by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomaticStatus {
    /// How far it goes: `off`, `check`, `download`, `install`.
    pub auto: String,
    /// When it restarts: `on-demand`, `window`, `now`.
    pub reboot: String,
    /// Channel that it follows.
    pub channel: String,
    /// Versions that it may get; `None`: any.
    pub pin: Option<String>,
    /// What it is called in waves, by FleetLock and in reports.
    pub host_id: String,
    /// Since when an operator wants nothing done, seconds since the Unix epoch.
    pub paused_unix_s: Option<u64>,
    /// The release that it goes towards.
    pub candidate: Option<Version>,
    /// When its wave of that release comes, if the release has waves.
    pub wave_unix_s: Option<u64>,
    /// Its maintenance windows, if they matter.
    pub window: Option<WindowStatus>,
    /// Leave to restart, if it needs any or may hold one.
    pub lock: Option<LockStatus>,
    /// What it does or waits for, in words.
    pub next: String,
    /// When it goes on by itself, at the latest.
    pub next_unix_s: Option<u64>,
    /// When it last looked what the repository has, and could tell.
    pub looked_unix_s: Option<u64>,
    /// What failed last, if nothing worked since.
    pub problem: Option<String>,
    /// Outcomes that the collector wasn't told of yet.
    pub outcomes_waiting: u32,
}

/// Maintenance windows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowStatus {
    /// Whether one is open.
    pub open: bool,
    /// When it closes, or the next one opens, seconds since the Unix epoch.
    pub until_unix_s: Option<u64>,
}

/// Leave to restart (FleetLock).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockStatus {
    /// Base address of the server.
    pub url: String,
    /// Group of hosts.
    pub group: String,
    /// `free`, `asked` (what came of it isn't known) or `held`, by this host.
    pub state: String,
    /// Since when it is held, seconds since the Unix epoch.
    pub since_unix_s: Option<u64>,
}
