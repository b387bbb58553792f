//! Which hosts there are: all kinds of settings, in all kinds of places.

use keel_spec::api::BadRelease;
use keel_spec::config::{ALL_DAYS, Auto, Automatic, CheckEvery, FleetLock, Reboot, Window};
use keel_spec::release::Version;
use keel_updater::rollout::memory::{Event, Memory};
use keel_updater::rollout::record::Record;

use super::Settings;

/// A simulated host.
pub struct Host {
    /// Its ID.
    pub id: String,
    /// What it does by itself.
    pub config: Settings,
    /// What it remembers.
    pub memory: Memory,
    /// Running release.
    pub running: Version,
    /// The release that last proved good.
    pub good: Version,
    /// What boots next.
    pub next_boot: Version,
    /// What is written, but not offered.
    pub writing: Option<Version>,
    /// Whether the running release has to prove itself.
    pub on_trial: bool,
    /// When the trial ends, and how.
    pub trial_ends: Option<(u64, bool)>,
    /// Releases that failed.
    pub bad: Vec<BadRelease>,
    /// Boots so far.
    pub boots: u64,
    /// Wakings so far.
    pub wakings: u64,
    /// What came of the last action, still on its way.
    pub pending: Option<Event>,
    /// When its operator restarts it.
    pub operator_restarts_at: Option<u64>,
    /// Whether it should have the last release in the end.
    pub counts: bool,
}

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Auckland", "America/Sao_Paulo"];
/// Hosts of a lock group.
pub const GROUP: usize = 10;

/// So many hosts that run a release.
pub fn hosts(count: usize, running: &Version, start: u64) -> Vec<Host> {
    let kinds = kinds();
    (0..count).map(|index| host(index, &kinds, running, start)).collect()
}

fn host(index: usize, kinds: &[Settings], running: &Version, start: u64) -> Host {
    // Of a hundred: 30 restart at once, 10 of them in lock groups; 60 in windows, 20 of them in lock groups; 8 on
    // demand; one is paused, one follows another channel.
    let part = index / GROUP % 10;
    let (kind, group) = match part {
        0 | 1 => (0, false),
        2 => (0, true),
        3..=6 => (1 + index / GROUP / 10 % (2 * ZONES.len()), false),
        7 | 8 => (1 + index / GROUP / 10 % (2 * ZONES.len()), true),
        _ => (1 + 2 * ZONES.len(), false),
    };
    let mut config = kinds.get(kind).cloned().unwrap_or_default();
    if group {
        let lock = FleetLock { url: "https://lock".into(), group: format!("group-{}", index / GROUP) };
        config = Automatic { fleetlock: Some(lock), ..Automatic::clone(&config) }.into();
    }
    let id = format!("{index:032x}");
    let mut record = Record::default();
    let mut counts = true;
    if part == 9 && index.is_multiple_of(GROUP) {
        (record.paused_unix_s, counts) = (Some(start), false);
    } else if part == 9 && index % GROUP == 1 {
        config = Automatic { channel: "beta".parse().unwrap_or_default(), ..Automatic::clone(&config) }.into();
        counts = false;
    }
    let restarts = (config.reboot == Reboot::OnDemand).then(|| start + 3600 * (index as u64 % 72));
    Host {
        memory: Memory::new(id.clone(), record),
        id,
        config,
        running: running.clone(),
        good: running.clone(),
        next_boot: running.clone(),
        writing: None,
        on_trial: false,
        trial_ends: None,
        bad: Vec::new(),
        boots: 1,
        wakings: 0,
        pending: None,
        operator_restarts_at: restarts,
        counts,
    }
}

/// At once; nightly and at weekends, for each zone; on demand.
fn kinds() -> Vec<Settings> {
    let kind = |reboot, windows| Automatic {
        auto: Auto::Install,
        reboot,
        windows,
        check: CheckEvery { every_min: 360, jitter_min: 60 },
        report_url: Some("https://collector".into()),
        ..Automatic::default()
    };
    let mut kinds = vec![kind(Reboot::Now, Vec::new())];
    for name in ZONES {
        let zone = || name.parse().unwrap_or(keel_spec::zone::Zone::utc());
        // Through the hour that clocks jump over, or show twice.
        kinds.push(kind(Reboot::Window, vec![Window { days: ALL_DAYS, start_min: 150, length_min: 60, zone: zone() }]));
        kinds.push(kind(
            Reboot::Window,
            vec![Window { days: 0b110_0000, start_min: 60, length_min: 240, zone: zone() }],
        ));
    }
    kinds.push(kind(Reboot::OnDemand, Vec::new()));
    kinds.into_iter().map(Settings::new).collect()
}
