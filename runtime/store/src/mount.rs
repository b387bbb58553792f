//! An image mounted for one container, or for a look at what a container has changed.
//!
//! The image's tree is mounted as erofs, straight from its file, seen through an ID mapping where one is given, and
//! overlayfs puts the objects behind the names and a writable folder above. So containers with different user
//! namespaces share the files of images without a copy or a chown, on disk as in memory. Nothing of it is visible in
//! any namespace until the caller attaches the mount.
//!
//! Where the store is sealed, overlayfs compares each object's fs-verity digest with the one in the tree before it
//! opens it (`verity=require`), the tree's own has been compared with its name, and the kernel checks each block that
//! it reads of either: what has been changed on disk is an I/O error.
//!
//! The stacking happens in the store's own mount namespace (see [`crate::mounts`]), where the trees stay mounted for the
//! next container; overlayfs keeps what it needs of it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, open, openat, stat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use crate::digest::ImageId;
use crate::error::Error;
use crate::mounts::Mounts;
use crate::store::{IdMap, Store};
use crate::sys;
use crate::trees::TreeFile;

/// What overlayfs puts above an image.
#[derive(Clone, Copy)]
enum Above<'a> {
    /// A writable folder: `upper` and `work` in it.
    Writable(&'a Path),
    /// The `upper` of such a folder, only to be read.
    Readable(&'a Path),
    /// Nothing.
    Nothing,
}

impl Store {
    /// Mounts an image for one container: its files read-only below, `upper/upper` above. The mount is detached,
    /// visible in no namespace until its descriptor is attached with `move_mount`.
    /// With a mapping, the host sees a file of the container's user n owned by `host_base + n`.
    pub fn mount(&self, image: &ImageId, upper: &Path, mapping: Option<IdMap>) -> Result<OwnedFd, Error> {
        self.mounted(image, Above::Writable(upper), mapping)
    }

    /// Mounts an image only to be read, with what a container has changed where its folder is given. That container may
    /// run: what it does meanwhile may be seen or not.
    pub fn view(&self, image: &ImageId, upper: Option<&Path>, mapping: Option<IdMap>) -> Result<OwnedFd, Error> {
        self.mounted(image, upper.map_or(Above::Nothing, Above::Readable), mapping)
    }

    fn mounted(&self, image: &ImageId, above: Above<'_>, mapping: Option<IdMap>) -> Result<OwnedFd, Error> {
        let stack = Stack {
            image,
            tree: self.tree(image)?,
            mounts: &self.mounts,
            objects: self.depot.objects.folder(),
            above,
            mapping,
        };
        // Here and not on the thread: the namespace's process ends with the thread that started it.
        let namespace = match mapping {
            None => None,
            Some(mapping) => {
                Some(self.namespaces.get(mapping).map_err(|error| stack.fail("making a user namespace", error))?)
            }
        };
        self.mounts
            .within(|| stack.mount(namespace.as_ref().map(|namespace| namespace.as_fd())))
            .map_err(|error| stack.fail("entering the store's mount namespace", error))?
    }
}

/// What is stacked.
struct Stack<'a> {
    image: &'a ImageId,
    tree: TreeFile,
    mounts: &'a Mounts,
    objects: &'a Path,
    above: Above<'a>,
    mapping: Option<IdMap>,
}

impl Stack<'_> {
    fn fail(&self, step: impl Into<String>, source: impl Into<std::io::Error>) -> Error {
        Error::Mount { image: self.image.to_string(), step: step.into(), source: source.into() }
    }

    /// Stacks it all; the calling thread is in the store's mount namespace.
    fn mount(&self, namespace: Option<BorrowedFd<'_>>) -> Result<OwnedFd, Error> {
        let fail = |error| self.fail("sharing the tree", error);
        let tree = self.mounts.of_tree(&self.tree, || self.mount_tree(), fail)?;
        if let Some(namespace) = namespace {
            sys::map_ids(tree.as_fd(), namespace).map_err(|error| self.fail("mapping owners", error))?;
        }
        let tree = self.mounts.attach(&tree).map_err(|error| self.fail("attaching the tree", error))?;
        let name =
            |path: &Path| path.to_str().map(str::to_owned).ok_or_else(|| self.fail("naming a folder", Errno::ILSEQ));
        let mut options = vec![("source", "overlay".to_owned())];
        let folders = match self.above {
            Above::Writable(folder) => Some(prepare(tree.path(), folder, self.mapping)?),
            Above::Readable(folder) => {
                options.push(("lowerdir+", name(&folder.join("upper"))?));
                None
            }
            Above::Nothing => None,
        };
        options.extend([("lowerdir+", name(tree.path())?), ("datadir+", name(self.objects)?)]);
        if let Some((upper, work)) = &folders {
            options.extend([("upperdir", fd_path(upper)), ("workdir", fd_path(work))]);
        }
        // Said out loud, because distributions differ in what they build in. Without the first two there is no way from
        // names to objects; `xino` gives all files of a container one device number, which `tar` and `find` look at.
        for (key, value) in [("metacopy", "on"), ("redirect_dir", "on"), ("index", "off"), ("xino", "on")] {
            options.push((key, value.into()));
        }
        if self.tree.is_sealed {
            options.push(("verity", "require".into()));
        }
        self.file_system("overlay", &options)
    }

    /// The tree, straight from its file. Files of tmpfs can't serve (where a state disk that fails is replaced by memory):
    /// a copy in ramfs can.
    fn mount_tree(&self) -> Result<OwnedFd, Error> {
        let erofs = |file: &File| self.file_system("erofs", &[("source", fd_path(file))]);
        match erofs(&self.tree.file) {
            Err(Error::Mount { source, .. }) if source.raw_os_error() == Some(libc::ENOTBLK) => {}
            other => return other,
        }
        let memory = self.file_system("ramfs", &[])?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
        let copy =
            openat(&memory, "tree", flags, Mode::RUSR).map_err(|error| self.fail("making a file in memory", error))?;
        let mut copy = File::from(copy);
        std::io::copy(&mut &self.tree.file, &mut copy).map_err(|error| self.fail("copying the tree", error))?;
        erofs(&copy)
    }

    fn file_system(&self, kind: &str, options: &[(&str, String)]) -> Result<OwnedFd, Error> {
        let context =
            fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|error| self.fail(format!("opening {kind}"), error))?;
        for (key, value) in options {
            fsconfig_set_string(&context, *key, value.as_str())
                .map_err(|e| self.fail(format!("setting {key} of {kind}{}", kernel_messages(&context)), e))?;
        }
        fsconfig_create(&context).map_err(|e| self.fail(format!("making {kind}{}", kernel_messages(&context)), e))?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .map_err(|error| self.fail(format!("mounting {kind}"), error))
    }
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

/// The writable folders: made for a new container, left as they are for one that starts again.
fn prepare(tree: &Path, upper: &Path, mapping: Option<IdMap>) -> Result<(OwnedFd, OwnedFd), Error> {
    std::fs::create_dir_all(upper).map_err(Error::io("making folder", upper))?;
    let folder = open_folder(upper)?;
    let base = mapping.map_or(0, |mapping| mapping.host_base);
    // The root of the overlay looks like the upper folder: take the image's mode.
    let mode = stat(tree).map_or(0o755, |stat| stat.st_mode & 0o7777);
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
fn fd_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
