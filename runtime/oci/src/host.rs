//! Mounts that the parent makes, with the host's rights, and passes to the child: parts of the host's tree, which a
//! user namespace may be kept from reaching, and `/dev`, in which it may not make device nodes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid};

use crate::error::Step;
use crate::init::Failure;
use crate::options::{self, attr};
use crate::plan;
use crate::planned::{self, HostMount, Idmap};
use crate::spec::{Device, Spec};
use crate::{Error, inroot, mounts, sys, userns};

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
    (PTMX, "pts/ptmx"),
];
const PTMX: &str = "ptmx";
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
        HostMount::Bind(b) => {
            let step = || format!("bind mount {}", b.source);
            let fd = mounts::clone_mount(CWD, &b.source, b.recursive).host(step)?;
            let propagation =
                |fd: &OwnedFd, kind, recursive| sys::mount_setattr(fd.as_fd(), recursive, 0, 0, kind, None);
            // A copy of a shared mount would pass on to the host what is mounted inside.
            if b.propagation.is_empty() {
                propagation(&fd, libc::MS_SLAVE, true).host(step)?;
            }
            for p in &b.propagation {
                propagation(&fd, p.kind, p.recursive).host(step)?;
            }
            options::apply(fd.as_fd(), b.change, b.below).host(step)?;
            if let Some(idmap) = &b.idmap {
                map_ids(fd.as_fd(), idmap, userns, &b.source)?;
            }
            let file = !inroot::is_folder(&fd).host(step)?;
            Ok((fd, file))
        }
        HostMount::Dev { options, attributes } => Ok((dev(options, *attributes, owner)?, false)),
    }
}

/// Maps the owners of files: by a mapping of the mount's own, or by the container's.
fn map_ids(fd: BorrowedFd<'_>, idmap: &Idmap, userns: Option<BorrowedFd<'_>>, source: &str) -> Result<(), Error> {
    let step = || format!("map IDs of bind mount {source}");
    let made;
    let userns = if idmap.uids.is_empty() {
        userns.ok_or_else(|| plan::refused("mounts", format!("{source}: idmap needs mappings or a user namespace")))?
    } else {
        made = userns::make(&idmap.uids, &idmap.gids).host(step)?;
        made.as_fd()
    };
    sys::mount_setattr(fd, idmap.recursive, attr::IDMAP, 0, 0, Some(userns)).host(step)
}

/// Device nodes of every container, as the configuration would have them.
pub(crate) fn usual_devices() -> Vec<Device> {
    let device = |(name, major, minor): (&str, u32, u32)| Device {
        path: format!("/dev/{name}"),
        kind: "c".into(),
        major: major.into(),
        minor: minor.into(),
        ..Device::default()
    };
    DEVICES.map(device).to_vec()
}

/// Makes device nodes and links below a root that has no `/dev` of its own; what is there already, stays.
pub(crate) fn make_nodes(root: BorrowedFd<'_>, devices: &[Device], links: bool) -> Result<(), Failure> {
    for device in devices {
        let step = || format!("make device {}", device.path);
        node_below(root, device).map_err(Failure::at(step()))?;
    }
    if !links {
        return Ok(());
    }
    let dev = inroot::make_folder(root, Path::new("/dev")).map_err(Failure::at("make /dev"))?;
    for (name, target) in LINKS {
        match rustix::fs::symlinkat(target, &dev, name) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(Failure::at(format!("make /dev/{name}"))(e)),
        }
    }
    Ok(())
}

fn node_below(root: BorrowedFd<'_>, device: &Device) -> io::Result<()> {
    let (Some(kind), Ok(major), Ok(minor)) =
        (file_type(&device.kind), u32::try_from(device.major), u32::try_from(device.minor))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let path = Path::new(&device.path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let parent = inroot::make_folder(root, parent)?;
    let ids = (device.uid.unwrap_or(0), device.gid.unwrap_or(0));
    let id = rustix::fs::makedev(major, minor);
    match node(parent.as_fd(), &name.to_string_lossy(), kind, device.file_mode.unwrap_or(0o666) & 0o7777, id, ids) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            // As the specification asks: what is there must be that device.
            let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            let same = FileType::from_raw_mode(stat.st_mode) == kind && (stat.st_rdev == id || kind == FileType::Fifo);
            if same { Ok(()) } else { Err(e) }
        }
        other => other,
    }
}

fn file_type(kind: &str) -> Option<FileType> {
    Some(match kind {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        _ => return None,
    })
}

/// `/dev`: its nodes belong to the container alone, so that what it does to their owners and modes stays inside.
fn dev(options: &[(String, Option<String>)], attributes: u64, owner: Owner<'_>) -> Result<OwnedFd, Error> {
    let (uid, gid) =
        owner.to_host(0, 0).ok_or_else(|| plan::refused("linux.uidMappings", "ID 0 isn't mapped".into()))?;
    let mut options = options.to_vec();
    options.retain(|(k, _)| k != "uid" && k != "gid");
    options.extend([("uid".into(), Some(uid.to_string())), ("gid".into(), Some(gid.to_string()))]);
    // Read-only comes last, or nothing could be made in it; the mount itself stays writable for the child's folders.
    let dev =
        mounts::new_file_system("tmpfs", None, &options, attributes & !attr::RDONLY).host(|| "make /dev".into())?;
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
    // Those elsewhere are made in the root.
    let Some(name) = planned::under_dev(device) else { return Ok(()) };
    // So are the usual ones; and `ptmx` is a link to the container's own, which Docker's list for `--privileged` names.
    if name == PTMX || DEVICES.iter().any(|(n, ..)| *n == name) {
        return Ok(());
    }
    let kind = file_type(&device.kind).ok_or_else(|| refuse("has a type other than c, u, b, p"))?;
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
