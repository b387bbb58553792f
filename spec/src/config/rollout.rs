//! What a host does about updates by itself.

use serde::{Deserialize, Serialize};

use crate::rollout::{Channel, Pin};
use crate::zone::Zone;

/// What a host does about updates by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Automatic {
    /// How far it goes.
    pub auto: Auto,
    /// Channel that it follows, `stable` by default.
    pub channel: Channel,
    /// Versions that it may get; `None`: any.
    pub pin: Option<Pin>,
    /// How often it looks.
    pub check: CheckEvery,
    /// When it restarts into a release that it installed.
    pub reboot: Reboot,
    /// Maintenance windows.
    pub windows: Vec<Window>,
    /// Who is asked for leave to restart.
    pub fleetlock: Option<FleetLock>,
    /// Address that outcomes are posted to.
    pub report_url: Option<String>,
}

/// How far a host goes by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Auto {
    /// It does nothing.
    #[default]
    Off,
    /// It looks what there is, and says so.
    Check,
    /// It writes the release into the slot that isn't running; an operator's install then fetches nothing.
    Download,
    /// It installs the release, and restarts when [`Automatic::reboot`] says so.
    Install,
}

impl Auto {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Check, Self::Download, Self::Install];

    /// As in the machine config.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Check => "check",
            Self::Download => "download",
            Self::Install => "install",
        }
    }
}

/// When a host restarts into a release that it installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reboot {
    /// When somebody asks for it.
    #[default]
    OnDemand,
    /// In a maintenance window.
    Window,
    /// As soon as it is written.
    Now,
}

impl Reboot {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OnDemand, Self::Window, Self::Now];

    /// As in the machine config.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Window => "window",
            Self::Now => "now",
        }
    }
}

/// How often a host looks for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckEvery {
    /// Minutes between two looks, 1 to 10080, 60 by default.
    pub every_min: u32,
    /// Most minutes that are added to it, another number each time, 0 to 10080, 10 by default: so that a fleet doesn't
    /// come all at once.
    pub jitter_min: u32,
}

impl Default for CheckEvery {
    fn default() -> Self {
        Self { every_min: 60, jitter_min: 10 }
    }
}

/// A maintenance window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Days on which it opens, bit 0 is Monday; all by default.
    pub days: u8,
    /// When it opens by the wall's clock, minutes after midnight.
    pub start_min: u32,
    /// How long it stays open, 5 to 1440 minutes.
    pub length_min: u32,
    /// Where that wall is, UTC by default.
    pub zone: Zone,
}

/// All days of [`Window::days`].
pub const ALL_DAYS: u8 = 0x7f;
/// Names of days, Monday first.
pub const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Who is asked for leave to restart (the FleetLock protocol).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FleetLock {
    /// Base address.
    pub url: String,
    /// Group of hosts that this one restarts in turn with, `default` by default.
    pub group: String,
}
