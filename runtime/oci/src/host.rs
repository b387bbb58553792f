//! Mounts that the parent makes, with the host's rights, and passes to the child: parts of the host's tree, which a
//! user namespace may be kept from reaching, and `/dev`, in which it may not make device nodes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};

use crate::error::Step;
use crate::plan::{self, HostMount, attr};
use crate::spec::{Device, Spec};
use crate::{Error, inroot, mounts, sys};

/// Device nodes of every container: name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// Links in `/dev`.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];
/// Folders in `/dev` that something is mounted on.
const FOLDERS: [&str; 3] = ["pts", "shm", "mqueue"];

/// The host's numbers of the container's IDs.
#[derive(Clone, Copy)]
pub(crate) struct Owner<'a> {
    spec: &'a Spec,
    mapped: bool,
}

impl<'a> Owner<'a> {
    pub(crate) fn new(spec: &'a Spec, mapped: bool) -> Self {
        Self { spec, mapped }
    }

    /// The host's user and group for the container's; `None`: not mapped.
    pub(crate) fn to_host(self, uid: u32, gid: u32) -> Option<(u32, u32)> {
        if !self.mapped {
            return Some((uid, gid));
        }
        let linux = &self.spec.linux;
        Some((plan::to_host(&linux.uid_mappings, uid)?, plan::to_host(&linux.gid_mappings, gid)?))
    }
}

/// Makes one mount; second: whether it is a file. `userns` is the container's.
pub(crate) fn make(
    mount: &HostMount,
    owner: Owner<'_>,
    userns: Option<BorrowedFd<'_>>,
) -> Result<(OwnedFd, bool), Error> {
    match mount {
        HostMount::Bind { source, recursive, attributes, recursive_attributes, idmap } => {
            let step = || format!("bind mount {source}");
            let fd = mounts::clone_mount(CWD, source, *recursive).host(step)?;
            if *attributes != 0 {
                sys::mount_setattr(fd.as_fd(), *recursive_attributes, *attributes, 0, 0, None).host(step)?;
            }
            if *idmap {
                let userns = userns.ok_or_else(|| {
                    plan::refused("mounts", format!("{source}: idmap needs a user namespace of its own"))
                })?;
                sys::mount_setattr(fd.as_fd(), false, attr::IDMAP, 0, 0, Some(userns))
                    .host(|| format!("map IDs of bind mount {source}"))?;
            }
            let file = !inroot::is_folder(&fd).host(step)?;
            Ok((fd, file))
        }
        HostMount::Dev { options, attributes } => Ok((dev(options, *attributes, owner)?, false)),
    }
}

/// `/dev`: its nodes belong to the container alone, so that what it does to their owners and modes stays inside.
fn dev(options: &[(String, Option<String>)], attributes: u64, owner: Owner<'_>) -> Result<OwnedFd, Error> {
    let (uid, gid) =
        owner.to_host(0, 0).ok_or_else(|| plan::refused("linux.uidMappings", "ID 0 isn't mapped".into()))?;
    let mut options = options.to_vec();
    options.retain(|(k, _)| k != "uid" && k != "gid");
    options.extend([("uid".into(), Some(uid.to_string())), ("gid".into(), Some(gid.to_string()))]);
    // Read-only comes last, or nothing could be made in it; the mount itself stays writable for the child's folders.
    let dev = mounts::new_file_system("tmpfs", &options, attributes & !attr::RDONLY).host(|| "make /dev".into())?;
    for (name, major, minor) in DEVICES {
        node(dev.as_fd(), name, FileType::CharacterDevice, 0o666, rustix::fs::makedev(major, minor), (uid, gid))
            .host(|| format!("make /dev/{name}"))?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name).host(|| format!("make /dev/{name}"))?;
        chown(dev.as_fd(), name, (uid, gid)).host(|| format!("make /dev/{name}"))?;
    }
    for name in FOLDERS {
        rustix::fs::mkdirat(&dev, name, Mode::from_raw_mode(0o755)).host(|| format!("make /dev/{name}"))?;
        chown(dev.as_fd(), name, (uid, gid)).host(|| format!("make /dev/{name}"))?;
    }
    for device in &owner.spec.linux.devices {
        extra_device(dev.as_fd(), device, owner)?;
    }
    Ok(dev)
}

fn extra_device(dev: BorrowedFd<'_>, device: &Device, owner: Owner<'_>) -> Result<(), Error> {
    let refuse = |reason: &str| plan::refused("linux.devices", format!("{:?} {reason}", device.path));
    let name = device.path.strip_prefix("/dev/").filter(|n| !n.is_empty() && !n.contains('\0'));
    let name = name.filter(|n| n.split('/').all(|c| !matches!(c, "" | "." | "..")));
    let name = name.ok_or_else(|| refuse("isn't a path under /dev"))?;
    if DEVICES.iter().any(|(n, ..)| *n == name) {
        return Ok(());
    }
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => return Err(refuse("has a type other than c, u, b, p")),
    };
    let number = |n: i64| u32::try_from(n).map_err(|_| refuse("has an impossible number"));
    let id = rustix::fs::makedev(number(device.major)?, number(device.minor)?);
    let ids = owner.to_host(device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    let ids = ids.ok_or_else(|| refuse("belongs to an ID that isn't mapped"))?;
    let path = std::path::Path::new(name);
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        inroot::make_folder(dev, parent).host(|| format!("make folder of {}", device.path))?;
    }
    node(dev, name, kind, device.file_mode.unwrap_or(0o666) & 0o777, id, ids).host(|| format!("make {}", device.path))
}

fn node(dev: BorrowedFd<'_>, name: &str, kind: FileType, mode: u32, id: u64, ids: (u32, u32)) -> io::Result<()> {
    let mode = Mode::from_raw_mode(mode);
    rustix::fs::mknodat(dev, name, kind, mode, id)?;
    // The caller's umask may have taken bits.
    rustix::fs::chmodat(dev, name, mode, AtFlags::empty())?;
    chown(dev, name, ids)
}

fn chown(dev: BorrowedFd<'_>, name: &str, (uid, gid): (u32, u32)) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    Ok(rustix::fs::chownat(dev, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
}
