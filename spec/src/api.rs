//! JSON bodies of the host's own HTTP API, `/keel/v1/`, served beside the Docker Engine API.
//!
//! | method and path | answer |
//! | --- | --- |
//! | `GET /keel/v1/status` | [`Status`] |
//! | `GET /keel/v1/services` | `[Service]` ([`crate::control::Service`]) |
//! | `GET /keel/v1/logs/{service}` | text, one line each |
//! | `GET /keel/v1/update` | [`UpdateStatus`] |
//! | `POST /keel/v1/update/check` | [`UpdateCheck`] |
//! | `POST /keel/v1/update/plan` with [`InstallRequest`] | [`UpdatePlan`](plan::UpdatePlan) |
//! | `POST /keel/v1/update/install` with [`InstallRequest`] | stream of [`InstallEvent`], one JSON document a line |
//! | `POST /keel/v1/update/bundle` with a bundle ([`crate::bundle`]) | the same |
//! | `POST /keel/v1/update/bundles` | [`PluggedBundles`] |
//! | `POST /keel/v1/update/rollback` | [`Rollback`] |
//! | `GET /keel/v1/containers` | [`[ExpectedContainer]`](expected::ExpectedContainer), by name |
//! | `GET /keel/v1/metrics` | figures in Prometheus' text format |
//! | `GET /keel/v1/boots` | [`[Boot]`](boots::Boot), newest first |
//! | `GET /keel/v1/boots/{number}/log` | text: last log lines, kernel messages |
//! | `POST /keel/v1/update/pause`, `POST /keel/v1/update/resume` | [`UpdateStatus`] |
//! | `POST /keel/v1/reboot`, with `?kexec=1` or `?kexec=0` if it matters | [`Restart`] |
//! | `POST /keel/v1/poweroff` | 204 |
//!
//! A failure is any other status with an [`ApiError`].

mod automatic;
pub mod boots;
pub mod expected;
pub mod plan;

use serde::{Deserialize, Serialize};

pub use self::automatic::{AutomaticStatus, LockStatus, WindowStatus};
use crate::control::{Service, Stage};
use crate::release::Version;

/// Why a request failed; `code` is for programs, `message` for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// Kind of failure.
    pub code: ErrorCode,
    /// What was being done to what, why it failed, what to do.
    pub message: String,
}

/// Kinds of failure. `keelctl` exits with [`ErrorCode::exit_code`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// A fault of Keel or of the machine.
    Internal,
    /// The request itself is wrong.
    BadRequest,
    /// The thing named isn't there.
    NotFound,
    /// Something else is under way, or the state doesn't allow it.
    Conflict,
    /// A program of the host isn't answering.
    Unavailable,
    /// A server on the network can't be reached or answers wrongly.
    Network,
    /// A signature or its threshold is wrong.
    Signature,
    /// Metadata has expired.
    Expired,
    /// Older than what is trusted or running.
    Rollback,
    /// Content doesn't have the digest or length that was promised.
    Digest,
    /// The disk or a slot is too small.
    Space,
    /// This release failed on this machine before.
    KnownBad,
    /// Nothing newer than what runs.
    UpToDate,
    /// The machine config is wrong.
    Config,
}

impl ErrorCode {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 14] = [
        Self::Internal,
        Self::BadRequest,
        Self::NotFound,
        Self::Conflict,
        Self::Unavailable,
        Self::Network,
        Self::Signature,
        Self::Expired,
        Self::Rollback,
        Self::Digest,
        Self::Space,
        Self::KnownBad,
        Self::UpToDate,
        Self::Config,
    ];

    /// Exit code of `keelctl` for this failure. 2 is left to wrong command lines.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::BadRequest => 3,
            Self::NotFound => 4,
            Self::Conflict => 5,
            Self::Unavailable => 6,
            Self::Network => 10,
            Self::Signature => 11,
            Self::Expired => 12,
            Self::Rollback => 13,
            Self::Digest => 14,
            Self::Space => 15,
            Self::KnownBad => 16,
            Self::UpToDate => 17,
            Self::Config => 18,
        }
    }

    /// HTTP status of this failure.
    pub fn http_status(self) -> u16 {
        match self {
            Self::Internal => 500,
            Self::BadRequest | Self::Config => 400,
            Self::NotFound => 404,
            Self::Conflict | Self::KnownBad | Self::UpToDate => 409,
            Self::Unavailable => 503,
            Self::Network => 502,
            Self::Signature | Self::Expired | Self::Rollback | Self::Digest => 403,
            Self::Space => 507,
        }
    }

    /// Last part of its D-Bus error name: `KnownBad` for `known-bad`.
    pub fn bus_name(self) -> &'static str {
        match self {
            Self::Internal => "Internal",
            Self::BadRequest => "BadRequest",
            Self::NotFound => "NotFound",
            Self::Conflict => "Conflict",
            Self::Unavailable => "Unavailable",
            Self::Network => "Network",
            Self::Signature => "Signature",
            Self::Expired => "Expired",
            Self::Rollback => "Rollback",
            Self::Digest => "Digest",
            Self::Space => "Space",
            Self::KnownBad => "KnownBad",
            Self::UpToDate => "UpToDate",
            Self::Config => "Config",
        }
    }

    /// The code whose [`ErrorCode::bus_name`] this is; [`ErrorCode::Internal`] for any other.
    pub fn from_bus_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|code| code.bus_name() == name).unwrap_or(Self::Internal)
    }
}

/// The host at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the host.
    pub hostname: String,
    /// Running release.
    pub version: String,
    /// Its profile, `cloud` or `metal`.
    pub profile: String,
    /// Slot that it runs from, `a` or `b`.
    pub slot: String,
    /// How the host is.
    pub health: Health,
    /// Addresses with prefix length, `eth0 10.0.2.15/24`.
    pub addresses: Vec<String>,
    /// Where the API listens for TLS; `None` where the machine config names no certificates.
    pub api_listen: Option<String>,
    /// Name or address by which the host is best reached from afar: the first name that the machine config gives
    /// the API, else the first address. Empty where there is neither.
    #[serde(default)]
    pub advertised_host: String,
    /// Whether `keelctl` can be typed on the console.
    #[serde(default = "console_prompt_default")]
    pub console_prompt: bool,
    /// Kernel's random boot ID.
    pub boot_id: String,
    /// Milliseconds since boot.
    pub uptime_ms: u64,
    /// Boot stages, in order.
    pub stages: Vec<Stage>,
    /// All services.
    pub services: Vec<Service>,
    /// Containers that run, and all of them.
    pub containers_running: u32,
    /// Containers in all.
    pub containers: u32,
    /// Releases that failed on this machine, the latest first.
    pub bad_releases: Vec<BadRelease>,
    /// What is wrong, a line each: config refused, service down.
    pub problems: Vec<String>,
}

/// A host that doesn't say has the default of the machine config.
fn console_prompt_default() -> bool {
    true
}

/// How a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Something required isn't up yet, and nothing required has failed since the machine started.
    Starting,
    /// Everything required is up.
    Good,
    /// The release is on trial and has not proved itself yet.
    Trial,
    /// Something required is down.
    Degraded,
}

/// A release that failed on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadRelease {
    /// Its version.
    pub version: Version,
    /// Why it was left, in words: panic, hang, service not up.
    pub reason: String,
    /// When that was seen, seconds since the Unix epoch.
    pub at_unix_s: u64,
}

/// What is installed, what runs, what failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateStatus {
    /// Running release.
    pub running: Version,
    /// Slot that it runs from.
    pub slot: String,
    /// Whether it still has to prove itself.
    pub on_trial: bool,
    /// What the other slot holds, if it can be booted.
    pub other: Option<OtherRelease>,
    /// What boots next, as far as can be told.
    pub next_boot: Version,
    /// Where releases come from.
    pub repository: Option<String>,
    /// Releases that failed here, the latest first.
    pub bad: Vec<BadRelease>,
    /// What the updater is doing: `idle`, or a stage of an install.
    pub activity: String,
    /// What the host does by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub automatic: Option<AutomaticStatus>,
    /// The least version that is accepted; absent while the TPM is being asked, and before a release proved itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum: Option<MinimumStatus>,
    /// What it has done so far.
    #[serde(default)]
    pub figures: UpdateFigures,
}

/// The least version that a machine accepts: of the newest release that ever proved itself there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinimumStatus {
    /// It.
    pub version: Version,
    /// Whether the machine's TPM holds it, too.
    pub in_tpm: bool,
    /// Why its TPM, which it has, doesn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpm_problem: Option<String>,
    /// When the state partition was found to be older than the TPM (seconds since the Unix epoch), and how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewound: Option<(u64, String)>,
}

/// What the updater has done since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UpdateFigures {
    /// When a repository's metadata were last found good, seconds since the Unix epoch.
    pub last_check_unix_s: Option<u64>,
    /// Bytes of releases that came over the network.
    pub fetched_bytes: u64,
    /// Bytes of releases that were on the disk already.
    pub copied_bytes: u64,
    /// Bytes of the running release that peers were served.
    #[serde(default)]
    pub served_bytes: u64,
}

/// The release in the slot that isn't running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherRelease {
    /// Its version.
    pub version: Version,
    /// `good`, `untried` or `failed`.
    pub state: String,
}

/// What a repository has to offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateCheck {
    /// Running release.
    pub running: Version,
    /// Newest release that may follow it; `None`: nothing newer.
    pub available: Option<Version>,
    /// Bytes to fetch and write for it.
    pub size_bytes: u64,
    /// Newer releases that were passed over, and why.
    pub passed_over: Vec<(Version, String)>,
}

/// Body of an install.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallRequest {
    /// Which version; `None`: the newest that may follow.
    #[serde(default)]
    pub version: Option<Version>,
    /// Address of a bundle (`http://`, `https://`) to install instead; its server has to serve ranges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A bundle on a disk that is plugged in: its name, that of the disk, the partition or the file; empty: the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<String>,
}

/// Bundles on disks that are plugged into the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedBundles {
    /// Those that were found, by name.
    pub bundles: Vec<PluggedBundle>,
    /// Where else they were looked for.
    pub looked: Vec<PluggedPlace>,
}

/// A bundle on a disk. Nothing of it has been verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedBundle {
    /// Disk or partition, and the file if it is one: `sdb1/keel-0.2.0.bundle`.
    pub name: String,
    /// The release that it says to hold.
    pub version: Version,
    /// That one's profile.
    pub profile: String,
    /// Its length.
    pub size_bytes: u64,
}

/// A disk, a partition or a file without a usable bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedPlace {
    /// Its name: `sdb1`.
    pub name: String,
    /// What there is instead, or why it can't be told.
    pub found: String,
}

/// One line of an install's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstallEvent {
    /// How far it is.
    Progress {
        /// What is being done.
        stage: String,
        /// Bytes done of this stage.
        done_bytes: u64,
        /// Bytes of this stage in all; 0 where unknown.
        total_bytes: u64,
    },
    /// It is installed and boots next.
    Installed {
        /// The version.
        version: Version,
    },
    /// It failed; the running release is untouched.
    Failed(ApiError),
}

/// How the host restarts; it goes down right after this answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The release whose kernel is started without the firmware; none: the firmware and the boot loader choose.
    pub kexec: Option<Version>,
    /// Why the firmware is not skipped, although that was asked for.
    pub refused: Option<String>,
}

/// Answer to a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// What boots next.
    pub next_boot: Version,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_own_exit_code_and_bus_name() {
        for (index, code) in ErrorCode::ALL.into_iter().enumerate() {
            assert_eq!(ErrorCode::from_bus_name(code.bus_name()), code);
            for other in &ErrorCode::ALL[index + 1..] {
                assert_ne!(code.exit_code(), other.exit_code());
            }
        }
    }
}
