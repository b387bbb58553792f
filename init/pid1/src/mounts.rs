//! What is mounted where, as tables.

use std::fs;
use std::io;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// One mount.
pub struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MountFlags,
    data: &'static str,
    /// Whether a machine without it can't go on.
    needed: bool,
}

const SAFE: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const NO_DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);
const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

const fn needed(kind: &'static str, target: &'static str, flags: MountFlags, data: &'static str) -> Mount {
    Mount { kind, target, flags, data, needed: true }
}

const fn optional(kind: &'static str, target: &'static str, flags: MountFlags) -> Mount {
    Mount { kind, target, flags, data: "", needed: false }
}

/// What stage 1 needs; moved to the verified root.
pub const STAGE_1: [Mount; 3] = [
    needed("devtmpfs", "/dev", NO_PROGRAMS, "mode=0755"),
    needed("proc", "/proc", SAFE, ""),
    needed("sysfs", "/sys", SAFE, ""),
];

/// What stage 2 adds. `/sys/fs/*` and `/sys/kernel/*` are there only where the kernel has them.
pub const STAGE_2: [Mount; 11] = [
    needed("tmpfs", "/run", NO_DEVICES, "mode=0755,size=20%"),
    needed("tmpfs", "/tmp", NO_DEVICES, "mode=1777,size=20%"),
    needed("devpts", "/dev/pts", NO_PROGRAMS, "mode=0620,gid=5,ptmxmode=0666"),
    needed("tmpfs", "/dev/shm", NO_DEVICES, "mode=1777"),
    optional("mqueue", "/dev/mqueue", SAFE),
    needed("cgroup2", "/sys/fs/cgroup", SAFE, "nsdelegate,memory_recursiveprot"),
    optional("pstore", "/sys/fs/pstore", SAFE),
    optional("bpf", "/sys/fs/bpf", SAFE),
    optional("securityfs", "/sys/kernel/security", SAFE),
    optional("tracefs", "/sys/kernel/tracing", SAFE),
    optional("hugetlbfs", "/dev/hugepages", NO_DEVICES),
];

/// The firmware's variables. Mounting asks the firmware for each, which takes as long as it likes.
pub const FIRMWARE: [Mount; 1] = [optional("efivarfs", "/sys/firmware/efi/efivars", SAFE)];

/// Mounts all of a table. What is mounted already stays. Returns what failed and can be done without, as messages.
pub fn mount_all(table: &[Mount]) -> Result<Vec<String>, String> {
    let mut problems = Vec::new();
    for entry in table {
        if let Err(error) = entry.mount() {
            let problem = format!("cannot mount {} on {}: {error}", entry.kind, entry.target);
            if entry.needed {
                return Err(problem);
            }
            problems.push(problem);
        }
    }
    Ok(problems)
}

impl Mount {
    fn mount(&self) -> io::Result<()> {
        // Folders in file systems that the kernel makes can't be made; then it doesn't have the thing to be mounted.
        if !Path::new(self.target).is_dir() && fs::create_dir_all(self.target).is_err() && !self.needed {
            return Ok(());
        }
        let data = std::ffi::CString::new(self.data)?;
        match mount(self.kind, self.target, self.kind, self.flags, data.as_c_str()) {
            Ok(()) | Err(Errno::BUSY) => Ok(()),
            Err(Errno::NODEV) if !self.needed => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
