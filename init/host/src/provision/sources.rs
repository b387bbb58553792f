//! Where a machine config may lie, in the order in which it is looked for: the EFI system partition, QEMU's fw_cfg, the
//! kernel command line, a config drive. The drive comes last, since it takes the drivers of all controllers of disks to
//! know that there is none. (A cloud provider's metadata need the network, which needs the config: they are not
//! read yet.)

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use keel_spec::config::MAX_CONFIG_BYTES;
use keel_spec::gpt::Extent;
use keel_spec::{cmdline, disk::ESP_LABEL, paths};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use super::disk::Disk;
use super::{fat, grow};

const INIT: &str = "/usr/lib/keel/init";
const MODPROBE: &str = "/usr/sbin/modprobe";
/// One byte more than a machine config may have: what is too long is refused by its parser.
const READ_BYTES: u64 = MAX_CONFIG_BYTES as u64 + 1;
/// Most block devices that are looked at for a config drive.
const MAX_DEVICES: usize = 64;
/// Bytes from a device's start that hold its label: an ISO 9660 volume descriptor lies at 32 KiB (ECMA-119, 8.4).
const HEAD_BYTES: usize = 33 * 1024;

/// A machine config that was found.
pub(super) struct Found {
    /// Where, for people.
    pub source: String,
    /// What is there, or why it can't be read.
    pub content: Result<Vec<u8>, String>,
}

/// The first machine config there is. A source that can't be looked at is logged and passed over.
pub(super) fn find(disk: Option<&Disk>) -> Option<Found> {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let nearby = disk.and_then(esp).or_else(fw_cfg).or_else(|| from_cmdline(&cmdline));
    nearby.or_else(|| {
        run(&[INIT, "coldplug"]);
        config_drive(disk)
    })
}

/// Runs one of PID 1's helpers to its end. PID 1 bounds the time that provisioning may take as a whole.
fn run(argv: &[&str]) {
    let [program, arguments @ ..] = argv else { return };
    match Command::new(program).args(arguments).stdin(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => log::warn!("{} ended with {status}", argv.join(" ")),
        Err(error) => log::warn!("cannot run {}: {error}", argv.join(" ")),
    }
}

/// Where the partition is, the table on the disk says: an update may have moved it since the kernel read that.
fn esp(disk: &Disk) -> Option<Found> {
    let device = disk.device();
    let mut file = File::open(&device).ok()?;
    let sectors = grow::sectors_of(&mut file).ok()?;
    let (table, _) = grow::read_table(&file, sectors).ok()?;
    let esp = Extent::of(table.by_name(ESP_LABEL)?);
    let place = esp.offset_bytes()..esp.offset_bytes().checked_add(esp.size_bytes())?;
    let content = fat::read(&device, place, paths::MACHINE_CONFIG, READ_BYTES);
    found(content, &format!("the EFI system partition of {}", disk.name))
}

fn config_drive(disk: Option<&Disk>) -> Option<Found> {
    let devices = fs::read_dir("/sys/class/block").ok()?.take(MAX_DEVICES).flatten();
    for device in devices {
        let name = device.file_name().to_string_lossy().into_owned();
        let ours = disk.is_some_and(|disk| name.starts_with(&disk.name));
        if ours || ["loop", "ram", "dm-", "zram"].iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        let mut head = vec![0; HEAD_BYTES];
        let read = File::open(Path::new("/dev").join(&name)).and_then(|file| file.read_exact_at(&mut head, 0));
        if read.is_err() {
            continue;
        }
        if let Some(kind) = config_drive_kind(&head)
            && let Some(found) = on_device(&name, kind, &format!("the config drive {name}"))
        {
            return Some(found);
        }
    }
    None
}

/// File systems that a machine config may lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fat,
    Iso9660,
}

/// The file system of a config drive, told by its label, from the head of a device.
fn config_drive_kind(head: &[u8]) -> Option<Kind> {
    let is_ours = |label: &[u8]| {
        let label = String::from_utf8_lossy(label).trim_end_matches([' ', '\0']).to_ascii_lowercase();
        label == "config-2" || label == "keel-config"
    };
    // ECMA-119, 8.4: a primary volume descriptor is type 1, "CD001"; its volume identifier is at 40.
    if head.get(32768..32774) == Some(b"\x01CD001") && head.get(32808..32840).is_some_and(is_ours) {
        return Some(Kind::Iso9660);
    }
    // FAT: the label lies at 43 in FAT12 and FAT16, at 71 in FAT32, beside the type's name.
    let fat16 = head.get(54..57) == Some(b"FAT") && head.get(43..54).is_some_and(is_ours);
    let fat32 = head.get(82..85) == Some(b"FAT") && head.get(71..82).is_some_and(is_ours);
    (fat16 || fat32).then_some(Kind::Fat)
}

/// The machine config on a block device, if there is one.
fn on_device(name: &str, kind: Kind, source: &str) -> Option<Found> {
    let device = Path::new("/dev").join(name);
    let content = match kind {
        Kind::Fat => fat::read(&device, fat::WHOLE, paths::MACHINE_CONFIG, READ_BYTES),
        Kind::Iso9660 => read_mounted(&device),
    };
    found(content, source)
}

fn found(content: io::Result<Option<Vec<u8>>>, source: &str) -> Option<Found> {
    match content {
        Ok(content) => content.map(|content| Found { source: source.into(), content: Ok(content) }),
        Err(error) => {
            log::warn!("cannot look for a machine config on {source}: {error}");
            None
        }
    }
}

/// The machine config on a CD-ROM, mounted nowhere that others see.
fn read_mounted(device: &Path) -> io::Result<Option<Vec<u8>>> {
    let mounted = mount_cd(device)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    match rustix::fs::openat(&mounted, paths::MACHINE_CONFIG, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(file) => read(File::from(file)).map(Some),
    }
}

fn mount_cd(device: &Path) -> rustix::io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("iso9660", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    rustix::mount::fsconfig_set_string(context, "source", device)?;
    rustix::mount::fsconfig_set_flag(context, "ro")?;
    rustix::mount::fsconfig_create(context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn fw_cfg() -> Option<Found> {
    let name = paths::FW_CFG_MACHINE_CONFIG;
    let folder = Path::new("/sys/firmware/qemu_fw_cfg");
    // The driver may not be there yet; the device's name is from QEMU's docs/specs/fw_cfg.rst.
    if Path::new("/sys/bus/acpi/devices/QEMU0002:00").exists() && !folder.exists() {
        run(&[MODPROBE, "qemu_fw_cfg"]);
    }
    let content = match File::open(folder.join("by_name").join(name).join("raw")).and_then(read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        content => content.map_err(|error| error.to_string()),
    };
    Some(Found { source: format!("QEMU's fw_cfg {name}"), content })
}

fn from_cmdline(cmdline: &str) -> Option<Found> {
    let text = cmdline::value(cmdline, "keel.config")?;
    let content = base64::engine::general_purpose::STANDARD.decode(text);
    let content = content.map_err(|error| format!("keel.config= is not base64: {error}"));
    Some(Found { source: "the kernel command line".into(), content })
}

fn read(file: File) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(READ_BYTES).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn config_drives_are_told_by_their_label() {
        let mut head = vec![0; HEAD_BYTES];
        assert_eq!(config_drive_kind(&head), None);
        head[54..59].copy_from_slice(b"FAT16");
        head[43..54].copy_from_slice(b"KEEL-CONFIG");
        assert_eq!(config_drive_kind(&head), Some(Kind::Fat));
        let mut head = vec![b' '; HEAD_BYTES];
        head[32768..32774].copy_from_slice(b"\x01CD001");
        head[32808..32816].copy_from_slice(b"config-2");
        assert_eq!(config_drive_kind(&head), Some(Kind::Iso9660));
        assert_eq!(config_drive_kind(&head[..100]), None);
    }

    #[test]
    fn the_command_line_carries_a_config_in_base64() {
        let found = from_cmdline("quiet keel.config=aG9zdG5hbWUgPSAieCI=").unwrap();
        assert_eq!(found.content.unwrap(), b"hostname = \"x\"");
        assert!(from_cmdline("keel.config=%").unwrap().content.is_err());
        assert!(from_cmdline("quiet").is_none());
    }
}
