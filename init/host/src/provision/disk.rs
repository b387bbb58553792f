//! Which disk a mount is on, as sysfs tells.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// A disk and the partition of it that is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// The kernel's name of the disk, `vda`.
    pub name: String,
    /// The kernel's name of the mounted partition, `vda6`.
    pub partition: String,
    /// Number of the mounted partition.
    pub number: u32,
}

impl Disk {
    /// The whole-disk device.
    pub fn device(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }
}

/// The disk that holds what is mounted at `mount`.
pub fn of_mount(mount: &Path) -> anyhow::Result<Disk> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read /proc/self/mountinfo")?;
    let Some(device) = device_of(&mounts, mount) else {
        bail!("nothing is mounted at {}", mount.display());
    };
    let link = Path::new("/sys/dev/block").join(device);
    let folder = fs::canonicalize(&link).with_context(|| format!("cannot find {}", link.display()))?;
    let number = fs::read_to_string(folder.join("partition"));
    let number = number.with_context(|| format!("what is mounted at {} is not a partition", mount.display()))?;
    let name = |path: Option<&Path>| path.and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    match (name(folder.parent()), name(Some(&folder)), number.trim().parse()) {
        (Some(disk), Some(partition), Ok(number)) => Ok(Disk { name: disk, partition, number }),
        _ => bail!("{} is no partition's folder", folder.display()),
    }
}

/// `major:minor` of the last mount at `mount` (Linux: Documentation/filesystems/proc.rst, section 3.5).
fn device_of<'a>(mountinfo: &'a str, mount: &Path) -> Option<&'a str> {
    mountinfo.lines().rev().find_map(|line| {
        let mut fields = line.split(' ').skip(2);
        let device = fields.next()?;
        (Path::new(fields.nth(1)?) == mount).then_some(device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mount_at_a_place_counts() {
        let mounts = "22 1 254:1 / / ro - erofs x ro\n30 22 254:6 / /var rw - ext4 /dev/vda6 rw\n\
                      31 22 0:5 / /var/x rw - tmpfs x rw\n";
        assert_eq!(device_of(mounts, Path::new("/var")), Some("254:6"));
        assert_eq!(device_of(mounts, Path::new("/")), Some("254:1"));
        assert_eq!(device_of("torn", Path::new("/")), None);
    }
}
