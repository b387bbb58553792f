//! This host as the updater sees it: what runs, and from which disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use keel_spec::api::ErrorCode;
use keel_spec::cmdline::BootParameters;
use keel_spec::disk::{ESP_LABEL, Slot};
use keel_spec::gpt::{Extent, Table};
use keel_spec::paths;
use keel_spec::release::Version;
use keel_spec::verity::RootHash;

use crate::disk::{self, FileDevice};
use crate::failure::{Failure, Result};

/// What runs, and from which disk.
#[derive(Clone, Debug)]
pub struct Host {
    /// Running release.
    pub running: Version,
    /// Its profile.
    pub profile: String,
    /// Its root hash.
    pub root_hash: RootHash,
    /// The disk with the slots.
    pub disk: PathBuf,
}

/// A value of os-release(5), without its quotes.
fn os_release_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim_matches(['"', '\'']))
}

impl Host {
    /// Reads os-release, the kernel's command line and the partition tables.
    pub fn read() -> Result<Self> {
        let read = |path: &str| fs::read_to_string(path).map_err(Failure::io(format!("read {path}")));
        let release = read(paths::OS_RELEASE)?;
        let running = os_release_value(&release, "VERSION_ID").unwrap_or_default();
        let running = running.parse().map_err(Failure::io(format!("read VERSION_ID in {}", paths::OS_RELEASE)))?;
        let profile = os_release_value(&release, "VARIANT_ID").unwrap_or("cloud").to_owned();
        let parameters = BootParameters::parse(&read("/proc/cmdline")?).map_err(Failure::io("find the root hash"))?;
        let root_hash = parameters.root_hash;
        let disk = disk::find(|table| Slot::holding(table, &root_hash).is_some())?;
        Ok(Self { running, profile, root_hash, disk })
    }

    /// Opens the disk.
    pub fn open_disk(&self) -> Result<FileDevice> {
        FileDevice::open(&self.disk).map_err(Failure::io(format!("open the disk {}", self.disk.display())))
    }

    /// Where the EFI system partition is.
    pub fn esp_place(&self, table: &Table) -> Result<Extent> {
        table.by_name(ESP_LABEL).map(Extent::of).ok_or_else(|| self.no_esp())
    }

    /// The kernel's device of the EFI system partition, which knows where it was when the machine was started.
    pub fn esp_device(&self, table: &Table) -> Result<PathBuf> {
        let missing = || self.no_esp();
        let number = table.by_name(ESP_LABEL).ok_or_else(missing)?.number;
        let name = self.disk.file_name().ok_or_else(missing)?;
        let folder = Path::new("/sys/class/block").join(name);
        let parts = fs::read_dir(&folder).map_err(Failure::io(format!("list {}", folder.display())))?;
        let is_it = |path: &Path| {
            fs::read_to_string(path.join("partition")).is_ok_and(|text| text.trim().parse() == Ok(number))
        };
        let part = parts.flatten().map(|entry| entry.path()).find(|path| is_it(path)).ok_or_else(missing)?;
        Ok(Path::new("/dev").join(part.file_name().ok_or_else(missing)?))
    }

    fn no_esp(&self) -> Failure {
        let message = format!("find the EFI system partition on {}: there is none", self.disk.display());
        Failure::new(ErrorCode::Internal, message)
    }
}

/// Batteries and mains, as the kernel shows them (`Documentation/ABI/testing/sysfs-class-power`).
pub const POWER_SUPPLIES: &str = "/sys/class/power_supply";
/// Most power supplies that are looked at.
const MAX_SUPPLIES: usize = 32;

/// Percent left in the fullest battery, if this machine runs on batteries now; a machine on mains has none to mind.
pub fn battery_percent(folder: &Path) -> Option<u8> {
    let supplies: Vec<PathBuf> = fs::read_dir(folder).ok()?.flatten().take(MAX_SUPPLIES).map(|it| it.path()).collect();
    let value = |supply: &Path, name: &str| Some(fs::read_to_string(supply.join(name)).ok()?.trim().to_owned());
    let is = |supply: &Path, name: &str, wanted: &str| value(supply, name).as_deref() == Some(wanted);
    if supplies.iter().any(|supply| !is(supply, "type", "Battery") && is(supply, "online", "1")) {
        return None;
    }
    // Batteries of mice and keyboards have the scope "Device".
    let ours = supplies.iter().filter(|supply| is(supply, "type", "Battery") && !is(supply, "scope", "Device"));
    let discharging = ours.filter(|supply| is(supply, "status", "Discharging"));
    discharging.filter_map(|supply| value(supply, "capacity")?.parse().ok()).max()
}

/// Now, seconds since the Unix epoch, by this host's clock.
pub fn now_unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Milliseconds since boot (`CLOCK_BOOTTIME`).
pub fn since_boot_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    time.tv_sec.unsigned_abs() * 1000 + time.tv_nsec.unsigned_abs() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_machines_own_battery_without_mains_counts() {
        let folder = std::env::temp_dir().join(format!("keel-updater-power-{}", std::process::id()));
        let put = |supply: &str, name: &str, value: &str| {
            fs::create_dir_all(folder.join(supply)).unwrap();
            fs::write(folder.join(supply).join(name), format!("{value}\n")).unwrap();
        };
        assert_eq!(battery_percent(&folder), None);
        for (name, value) in [("type", "Battery"), ("status", "Discharging"), ("capacity", "7"), ("scope", "Device")] {
            put("mouse", name, value);
        }
        assert_eq!(battery_percent(&folder), None);
        for (name, value) in [("type", "Battery"), ("status", "Discharging"), ("capacity", "15")] {
            put("BAT0", name, value);
        }
        assert_eq!(battery_percent(&folder), Some(15));
        put("AC", "type", "Mains");
        put("AC", "online", "1");
        assert_eq!(battery_percent(&folder), None);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn os_release_is_read_with_and_without_quotes() {
        let text = "ID=keel\nVERSION_ID=0.1.0\nVARIANT_ID=\"cloud\"\n";
        assert_eq!(os_release_value(text, "VERSION_ID"), Some("0.1.0"));
        assert_eq!(os_release_value(text, "VARIANT_ID"), Some("cloud"));
        assert_eq!(os_release_value(text, "VERSION"), None);
    }
}
