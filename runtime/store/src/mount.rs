//! An image mounted for one container.
//!
//! Each layer's folder is cloned as a mount of its own, seen through an ID mapping where one is given, and stacked by
//! overlayfs. So containers with different user namespaces share the files of an image without a copy or a chown.
//! Nothing of it is visible in any namespace until the caller attaches the mount.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, open, openat, stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    open_tree,
};

use crate::error::Error;
use crate::store::IdMap;
use crate::sys;
use crate::userns::Namespaces;

/// Mounts the trees of an image's layers, lowest first, below a writable folder.
pub fn mount(
    image: &str,
    trees: &[PathBuf],
    upper: &Path,
    mapping: Option<IdMap>,
    namespaces: &Namespaces,
) -> Result<OwnedFd, Error> {
    let fail = |step: String| {
        let image = image.to_owned();
        move |error: std::io::Error| Error::Mount { image, step, source: error }
    };
    let (top, work) = prepare(trees, upper, mapping)?;
    let namespace = match mapping {
        None => None,
        Some(mapping) => Some(namespaces.get(mapping).map_err(fail("making a user namespace".into()))?),
    };
    let mut lower = Vec::with_capacity(trees.len());
    // Overlayfs wants the topmost of the lower layers first.
    for tree in trees.iter().rev() {
        let step = format!("cloning {}", tree.display());
        lower.push(clone(tree, namespace.as_ref().map(|ns| ns.as_fd())).map_err(fail(step))?);
    }
    let overlay =
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| fail("opening overlayfs".into())(e.into()))?;
    let set = |key: &str, value: &str| {
        fsconfig_set_string(&overlay, key, value).map_err(|e| fail(format!("setting {key} of overlayfs"))(e.into()))
    };
    set("source", "overlay")?;
    for layer in &lower {
        set("lowerdir+", &fd_path(layer))?;
    }
    set("upperdir", &fd_path(&top))?;
    set("workdir", &fd_path(&work))?;
    // Said out loud, because distributions differ in what they build in: features that make an upper layer
    // unreadable to older kernels, or trust attributes in it, stay off.
    for (key, value) in [("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"), ("xino", "off")] {
        set(key, value)?;
    }
    fsconfig_create(&overlay).map_err(|e| fail("making the overlay (see the kernel's log)".into())(e.into()))?;
    fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|e| fail("mounting the overlay".into())(e.into()))
}

/// A detached mount of a folder.
fn clone(tree: &Path, namespace: Option<BorrowedFd<'_>>) -> std::io::Result<OwnedFd> {
    let mount = open_tree(CWD, tree, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    if let Some(namespace) = namespace {
        sys::map_ids(mount.as_fd(), namespace)?;
    }
    Ok(mount)
}

/// The writable folders: made for a new container, left as they are for one that starts again.
fn prepare(trees: &[PathBuf], upper: &Path, mapping: Option<IdMap>) -> Result<(OwnedFd, OwnedFd), Error> {
    std::fs::create_dir_all(upper).map_err(Error::io("making folder", upper))?;
    let folder = open_folder(upper)?;
    let base = mapping.map_or(0, |mapping| mapping.host_base);
    // The root of the overlay looks like the upper folder: take the image's mode, Docker's 0755 where it has none.
    let mode = trees.last().and_then(|tree| stat(tree).ok()).map_or(0o755, |stat| stat.st_mode & 0o7777);
    let make = |name: &str, mode: u32| -> Result<OwnedFd, Error> {
        let path = upper.join(name);
        let fail = |operation| {
            let path = path.clone();
            move |error: Errno| Error::io(operation, path)(error.into())
        };
        let made = match mkdirat(&folder, name, Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(fail("making folder")(error)),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made_folder = openat(&folder, name, flags, Mode::empty()).map_err(fail("opening"))?;
        if made {
            fchown(&made_folder, Some(Uid::from_raw(base)), Some(Gid::from_raw(base))).map_err(fail("giving away"))?;
            fchmod(&made_folder, Mode::from_raw_mode(mode)).map_err(fail("opening up"))?;
        }
        Ok(made_folder)
    };
    Ok((make("upper", mode)?, make("work", 0o700)?))
}

fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io("opening", path)(error.into()))
}

/// How a string names a descriptor: overlayfs takes descriptors themselves only from Linux 6.13 on.
fn fd_path(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
