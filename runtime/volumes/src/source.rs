//! Where a volume's files are, and what has to be mounted for that.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags};

use crate::Error;
use crate::error::system;
use crate::volume::{Kind, Volume};

/// The folder of a volume's files. Memory is mounted at `mountpoint`, unless it is already.
pub(crate) fn prepare(volume: &Volume, mountpoint: &Path) -> Result<PathBuf, Error> {
    match volume.kind()? {
        Kind::Folder => Ok(mountpoint.into()),
        Kind::Bind(path) => {
            let path = PathBuf::from(path);
            if path.exists() {
                return Ok(path);
            }
            let reason = format!("failed to mount local volume {}: no such folder: {}", volume.name, path.display());
            Err(Error::Invalid(reason))
        }
        Kind::Memory(options) => {
            let mount = || -> io::Result<()> {
                if is_mounted(mountpoint)? { Ok(()) } else { mount_memory(&options, mountpoint) }
            };
            mount().map_err(system(&volume.name, "mount its memory"))?;
            Ok(mountpoint.into())
        }
    }
}

/// Unmounts memory, with all that is in it.
pub(crate) fn release(volume: &Volume, mountpoint: &Path) -> io::Result<()> {
    if matches!(volume.kind(), Ok(Kind::Memory(_))) && is_mounted(mountpoint)? {
        rustix::mount::unmount(mountpoint, UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// Whether a folder is on another file system than the one it is in.
fn is_mounted(folder: &Path) -> io::Result<bool> {
    let above = rustix::fs::stat(folder.parent().unwrap_or(folder))?;
    Ok(rustix::fs::stat(folder)?.st_dev != above.st_dev)
}

fn mount_memory(options: &[(String, Option<String>)], at: &Path) -> io::Result<()> {
    let fs = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(fs.as_fd(), key, value)?,
            None => rustix::mount::fsconfig_set_flag(fs.as_fd(), key)?,
        }
    }
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    Ok(rustix::mount::move_mount(&mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}
