//! An image mounted for one container.
//!
//! Each layer's folder is cloned as a mount of its own, seen through an ID mapping where one is given, and stacked by
//! overlayfs. So containers with different user namespaces share the files of an image without a copy or a chown.
//! Nothing of it is visible in any namespace until the caller attaches the mount.
//!
//! Before Linux 6.15 overlayfs takes layers only from mounts of the caller's own mount namespace, detached ones not
//! among them. So the stacking happens on a thread with a mount namespace for itself, in which each mapped clone is
//! attached over its folder; the namespace ends with the thread, and overlayfs keeps what it needs.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, open, openat, stat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, open_tree,
};

use crate::error::Error;
use crate::store::IdMap;
use crate::sys;
use crate::userns::Namespaces;

/// Bytes of stack of the thread that mounts.
const STACK_BYTES: usize = 128 << 10;

/// Mounts the trees of an image's layers, lowest first, below a writable folder.
pub fn mount(
    image: &str,
    trees: &[PathBuf],
    upper: &Path,
    mapping: Option<IdMap>,
    namespaces: &Namespaces,
) -> Result<OwnedFd, Error> {
    let fail = |step: &str| {
        let (image, step) = (image.to_owned(), step.to_owned());
        move |source: std::io::Error| Error::Mount { image, step, source }
    };
    // Here and not on the thread: the namespace's process ends with the thread that started it.
    let namespace = match mapping {
        None => None,
        Some(mapping) => Some(namespaces.get(mapping).map_err(fail("making a user namespace"))?),
    };
    std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("mount".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                own_mount_namespace().map_err(fail("making a mount namespace"))?;
                stack(image, trees, upper, mapping, namespace.as_ref().map(|namespace| namespace.as_fd()))
            })
            .map_err(fail("starting a thread"))?
            .join()
            .map_err(|_| fail("stacking the layers")(std::io::Error::other("the thread panicked")))?
    })
}

/// Leaves the calling thread alone in a copy of its mount namespace, whose changes stay there.
fn own_mount_namespace() -> std::io::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    Ok(())
}

/// Stacks the layers; the calling thread has a mount namespace for itself.
fn stack(
    image: &str,
    trees: &[PathBuf],
    upper: &Path,
    mapping: Option<IdMap>,
    namespace: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, Error> {
    let fail = |step: String| {
        let image = image.to_owned();
        move |error: std::io::Error| Error::Mount { image, step, source: error }
    };
    let (top, work) = prepare(trees, upper, mapping)?;
    if let Some(namespace) = namespace {
        // An image may have the same layer twice.
        for tree in trees.iter().collect::<std::collections::BTreeSet<_>>() {
            let step = format!("mapping the owners in {}", tree.display());
            attach_mapped(tree, namespace).map_err(fail(step))?;
        }
    }
    let overlay =
        fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| fail("opening overlayfs".into())(e.into()))?;
    let set = |key: &str, value: &str| {
        fsconfig_set_string(&overlay, key, value)
            .map_err(|e| fail(format!("setting {key} of overlayfs{}", kernel_messages(&overlay)))(e.into()))
    };
    set("source", "overlay")?;
    // Overlayfs wants the topmost of the lower layers first.
    for tree in trees.iter().rev() {
        let path = tree.to_str().ok_or_else(|| fail("naming a layer".into())(Errno::ILSEQ.into()))?;
        set("lowerdir+", path)?;
    }
    set("upperdir", &fd_path(&top))?;
    set("workdir", &fd_path(&work))?;
    // Said out loud, because distributions differ in what they build in: features that make an upper layer
    // unreadable to older kernels, or trust attributes in it, stay off.
    for (key, value) in [("index", "off"), ("metacopy", "off"), ("redirect_dir", "nofollow"), ("xino", "off")] {
        set(key, value)?;
    }
    fsconfig_create(&overlay)
        .map_err(|e| fail(format!("making the overlay{}", kernel_messages(&overlay)))(e.into()))?;
    fsmount(&overlay, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|e| fail("mounting the overlay".into())(e.into()))
}

/// What the kernel has to say about a mount that it refused: a file system context is read message by message
/// (kernel: Documentation/filesystems/mount_api.rst).
fn kernel_messages(context: &OwnedFd) -> String {
    let mut text = String::new();
    let mut message = [0; 512];
    // The kernel keeps eight messages.
    for _ in 0..8 {
        let Ok(length @ 1..) = rustix::io::read(context, &mut message) else { break };
        text += if text.is_empty() { " (kernel: " } else { "; " };
        text += String::from_utf8_lossy(message.get(..length).unwrap_or_default()).trim();
    }
    if text.is_empty() { text } else { text + ")" }
}

/// Covers a folder with itself, seen through the mapping of a user namespace.
fn attach_mapped(tree: &Path, namespace: BorrowedFd<'_>) -> std::io::Result<()> {
    let mount = open_tree(CWD, tree, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    sys::map_ids(mount.as_fd(), namespace)?;
    Ok(move_mount(mount, "", CWD, tree, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
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
