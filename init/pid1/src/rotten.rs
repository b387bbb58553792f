//! A good slot that rots: the last boot of this very root ended in a panic of dm-verity.
//!
//! A release that proved good has no tries left to count down, so the boot loader would offer it for ever. The
//! panic's message survives in the firmware's store (efi-pstore). If there is one that names dm-verity and this root,
//! the UKI's name gets a counter that stands at zero, which makes the boot loader offer the other release first.
//! Where there is no other, nothing is done: a machine that panics now and then is better than one that doesn't boot.

use std::fs;
use std::path::Path;

use keel_spec::cmdline::kexec_entry;
use keel_spec::release::UkiName;
use keel_spec::verity::RootHash;
use keel_spec::{disk, paths};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::system::{RebootCommand, reboot};

use crate::console::Console;
use crate::disks::Disk;
use crate::modules::Modules;

const STORE: &str = "/sys/fs/pstore";
const VARIABLES: &str = "/sys/firmware/efi/efivars";
const ESP: &str = "/esp";
/// What the kernel says when dm-verity found a corrupt block (`drivers/md/dm-verity-target.c`).
const PANIC: &str = "dm-verity device corrupted";
/// Most records and most bytes of one that are read.
const MAX_RECORDS: usize = 256;
const MAX_RECORD_BYTES: u64 = 1 << 20;
/// Most files of the boot loader's folder that are looked at.
const MAX_FILES: usize = 256;

/// Leaves the root's hash in the kernel's log, so that the record of a panic says which root it was.
pub fn name_root(root_hash: &str) {
    let _ = fs::write("/dev/kmsg", format!("<6>keel: root {root_hash}\n"));
}

/// Restarts the machine with the other release first in line, if this root rotted. Otherwise just returns.
pub fn leave_if_rotten(root_hash: &RootHash, disk: &str, modules: &Modules, console: &mut Console) {
    let _ = mount("pstore", STORE, "pstore", MountFlags::empty(), None);
    let records = matching_records(&root_hash.to_string());
    if records.is_empty() {
        return;
    }
    console.say("the last boot of this root ended because dm-verity found a corrupt block");
    match put_other_first(disk, modules) {
        Ok(name) => {
            // Or a good release in this slot would be left again, at its next start.
            for record in records {
                let _ = fs::remove_file(record);
            }
            console
                .say(&format!("{name} is now the last choice of the boot loader; restarting into the other release"));
            rustix::fs::sync();
            let _ = reboot(RebootCommand::Restart);
        }
        Err(why) => console.say(&format!("going on with it nevertheless: {why}")),
    }
}

/// Records of panics of dm-verity under the root with this hash. A panic's text may be spread over several records,
/// so they count together.
fn matching_records(root_hash: &str) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut text = String::new();
    for entry in fs::read_dir(STORE).into_iter().flatten().flatten().take(MAX_RECORDS) {
        let small = entry.metadata().is_ok_and(|metadata| metadata.len() <= MAX_RECORD_BYTES);
        if small && entry.file_name().to_string_lossy().starts_with("dmesg-") {
            text.push_str(&String::from_utf8_lossy(&fs::read(entry.path()).unwrap_or_default()));
            found.push(entry.path());
        }
    }
    if tells_of_rot(&text, root_hash) { found } else { Vec::new() }
}

fn tells_of_rot(text: &str, root_hash: &str) -> bool {
    text.contains(PANIC) && text.contains(root_hash)
}

/// Renames the booted UKI. Returns its new name.
fn put_other_first(disk: &str, modules: &Modules) -> Result<String, String> {
    let booted = booted_entry()?;
    let device = Disk::read(disk)
        .and_then(|disk| disk.labelled(disk::ESP_LABEL))
        .ok_or_else(|| format!("disk {disk} has no EFI system partition"))?;
    let _ = modules.load("vfat");
    let _ = fs::create_dir_all(ESP);
    mount(&device, ESP, "vfat", MountFlags::NOEXEC | MountFlags::SYNCHRONOUS, None)
        .map_err(|error| format!("cannot mount the EFI system partition {}: {error}", device.display()))?;
    let folder = Path::new(ESP).join(UkiName::FOLDER);
    let names: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .take(MAX_FILES)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let result = exhausted(&booted, &names).and_then(|new| {
        let renamed = fs::rename(folder.join(&booted), folder.join(&new));
        renamed.map(|()| new).map_err(|error| format!("cannot rename {booted}: {error}"))
    });
    rustix::fs::sync();
    let _ = unmount(ESP, UnmountFlags::empty());
    result
}

/// The UKI that runs: by the command line after kexec, else as the boot loader says.
fn booted_entry() -> Result<String, String> {
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    if let Some(entry) = kexec_entry(&cmdline) {
        return Ok(entry.to_string());
    }
    let _ = mount("efivarfs", VARIABLES, "efivarfs", MountFlags::empty(), None);
    let variable = fs::read(paths::EFI_ENTRY_SELECTED)
        .map_err(|error| format!("cannot read which entry the boot loader chose: {error}"))?;
    Ok(text_of_variable(&variable))
}

/// The name that puts a good entry last, if there is another to be offered.
fn exhausted(booted: &str, names: &[String]) -> Result<String, String> {
    let uki: UkiName = booted.parse().map_err(|_| format!("the booted entry {booted:?} is no UKI of Keel"))?;
    if uki.tries_left.is_some() {
        return Err("the boot loader still counts its tries".into());
    }
    let others = names.iter().filter(|name| *name != booted).filter_map(|name| name.parse::<UkiName>().ok());
    if !others.into_iter().any(|other| other.is_offered() && other.version != uki.version) {
        return Err("there is no other release to be booted".into());
    }
    Ok(UkiName { tries_left: Some(0), tries_done: 1, ..uki }.to_string())
}

/// An EFI variable's text: UTF-16 after four bytes of attributes, ended by zero.
fn text_of_variable(bytes: &[u8]) -> String {
    let units = bytes.get(4..).unwrap_or_default().chunks_exact(2);
    let units = units.filter_map(|pair| Some(u16::from_le_bytes(pair.try_into().ok()?)));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).take(256).collect();
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotten_release_goes_last_only_if_another_is_offered() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let good = "keel_1.2.0.efi";
        assert_eq!(exhausted(good, &names(&[good, "keel_1.1.0.efi"])).unwrap(), "keel_1.2.0+0-1.efi");
        assert_eq!(exhausted(good, &names(&[good, "keel_1.3.0+2-1.efi"])).unwrap(), "keel_1.2.0+0-1.efi");
        assert!(exhausted(good, &names(&[good])).is_err());
        assert!(exhausted(good, &names(&[good, "keel_1.1.0+0-3.efi", "other.efi"])).is_err());
        assert!(exhausted("keel_1.2.0+2-1.efi", &names(&["keel_1.1.0.efi"])).is_err());
        assert!(exhausted("windows.efi", &names(&["keel_1.1.0.efi"])).is_err());
    }

    #[test]
    fn another_roots_panic_is_not_this_ones() {
        let text = "Panic#1\n<6>keel: root aa11\n<0>Kernel panic - not syncing: dm-verity device corrupted\n";
        assert!(tells_of_rot(text, "aa11"));
        assert!(!tells_of_rot(text, "bb22"));
        assert!(!tells_of_rot("keel: root aa11\nKernel panic - not syncing: oops", "aa11"));
    }

    #[test]
    fn variables_are_read_as_the_firmware_writes_them() {
        assert_eq!(text_of_variable(&[6, 0, 0, 0, b'k', 0, b'e', 0, 0, 0, b'x', 0]), "ke");
        assert_eq!(text_of_variable(&[6, 0]), "");
    }
}
