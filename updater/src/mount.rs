//! The EFI system partition, mounted for a moment, in this process's own mount namespace.

use std::io;
use std::path::Path;
use std::time::Duration;

use keel_spec::paths;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::esp::Folder;
use crate::failure::{Failure, Result};

/// How often a mount is tried while another program has the partition mounted otherwise.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Gives this process a mount namespace of its own: the host's mounts come in, ours don't go out. To be called before
/// any thread is made.
pub fn own_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    Ok(())
}

/// The mounted partition; dropping it unmounts.
pub struct Mounted {
    /// Its UKIs.
    pub folder: Folder,
    _guard: Guard,
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = umount2(paths::ESP_MOUNT, MntFlags::empty()) {
            log::error!("unmount {}: {error}", paths::ESP_MOUNT);
        }
    }
}

/// Mounts the partition.
pub fn esp(device: &Path) -> Result<Mounted> {
    let failed = || Failure::io(format!("mount the EFI system partition {}", device.display()));
    std::fs::create_dir_all(paths::ESP_MOUNT).map_err(failed())?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME;
    let mut tries = 0;
    loop {
        match mount(Some(device), paths::ESP_MOUNT, Some("vfat"), flags, Some("umask=0077")) {
            Ok(()) => break,
            Err(nix::errno::Errno::EBUSY) if tries < TRIES => {
                tries += 1;
                std::thread::sleep(PAUSE);
            }
            Err(error) => return Err(failed()(io::Error::from(error))),
        }
    }
    let guard = Guard;
    let folder = Folder::open(Path::new(paths::ESP_MOUNT)).map_err(failed())?;
    Ok(Mounted { folder, _guard: guard })
}
