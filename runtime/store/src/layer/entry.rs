//! One entry made into a file. Every path is walked by the kernel below the layer's root, without symbolic links
//! (openat2), so an archive can't reach anything else, however it orders its entries.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{Head, Kind};
use super::path::LayerPath;

/// Buffer for the content of files.
const COPY_BYTES: usize = 64 * 1024;
/// Marks a folder whose lower layers don't show through (kernel: Documentation/filesystems/overlayfs.rst).
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";

/// Why an entry couldn't be made.
#[derive(Debug)]
pub enum Failure {
    /// The archive is at fault.
    Refused(String),
    /// The stream failed.
    Read(io::Error),
    /// Our file system failed.
    Write(io::Error),
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Write(error.into())
    }
}

/// The tree of a layer in the making.
pub struct Tree {
    root: OwnedFd,
    /// The folder of the entry before: archives go folder by folder.
    last: Option<(LayerPath, OwnedFd)>,
    buffer: Vec<u8>,
}

impl Tree {
    /// A tree below an empty folder.
    pub fn new(root: OwnedFd) -> Self {
        Self { root, last: None, buffer: vec![0; COPY_BYTES] }
    }

    /// Makes an entry, in place of what an earlier entry of that name made.
    pub fn make(&mut self, path: &LayerPath, head: &Head, content: &mut impl Read) -> Result<(), Failure> {
        let Some((folder, name)) = path.split() else {
            return match head.kind {
                Kind::Folder => dress_folder(&self.root, head),
                _ => Err(Failure::Refused("the root of a layer must be a folder".into())),
            };
        };
        if head.kind == Kind::Folder {
            return self.make_folder(&folder, name, head);
        }
        self.clear(&folder, name)?;
        match head.kind {
            Kind::File => self.make_file(&folder, name, head, content),
            Kind::HardLink => self.make_link(&folder, name, head),
            _ => self.make_special(&folder, name, head),
        }
    }

    /// Sets the time of a folder, after everything in it has been made.
    pub fn set_folder_time(&mut self, path: &LayerPath, head_time: (i64, u32)) -> Result<(), Failure> {
        match path.split() {
            None => Ok(futimens(&self.root, &times(head_time))?),
            Some((folder, name)) => {
                let parent = self.folder(&folder)?;
                Ok(utimensat(parent, name, &times(head_time), AtFlags::SYMLINK_NOFOLLOW)?)
            }
        }
    }

    /// Hides the file of this name in lower layers: overlayfs wants a character device 0/0.
    pub fn hide(&mut self, folder: &LayerPath, name: &[u8]) -> Result<(), Failure> {
        let parent = self.folder(folder)?;
        match mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            // A whiteout speaks of lower layers only: what this layer has itself stays, but a folder must not mix.
            Err(Errno::EXIST) if kind_of(parent, name)? == FileType::Directory => {
                let mut path = folder.clone();
                path.push(name);
                self.hide_below(&path)
            }
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hides everything that lower layers have in a folder.
    pub fn hide_below(&mut self, folder: &LayerPath) -> Result<(), Failure> {
        let parent = self.folder(folder)?;
        let folder = openat(parent, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(fsetxattr(&folder, OPAQUE_XATTR, b"y", XattrFlags::empty())?)
    }

    fn make_folder(&mut self, folder: &LayerPath, name: &[u8], head: &Head) -> Result<(), Failure> {
        let parent = self.folder(folder)?;
        let mut opaque = false;
        match mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(there.st_mode) != FileType::Directory {
                    opaque = is_whiteout(&there);
                    unlinkat(parent, name, AtFlags::empty())?;
                    mkdirat(parent, name, Mode::RWXU)?;
                }
            }
            other => other?,
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(parent, name, flags, Mode::empty())?;
        if opaque {
            fsetxattr(&made, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
        }
        dress_folder(&made, head)
    }

    fn make_file(
        &mut self,
        folder: &LayerPath,
        name: &[u8],
        head: &Head,
        content: &mut impl Read,
    ) -> Result<(), Failure> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let parent = self.folder(folder)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
        loop {
            match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => file.write_all(buffer.get(..count).unwrap_or_default()).map_err(Failure::Write)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Read(error)),
            }
        }
        self.buffer = buffer;
        dress(&file, head)?;
        Ok(futimens(&file, &times((head.mtime_s, head.mtime_ns)))?)
    }

    fn make_link(&mut self, folder: &LayerPath, name: &[u8], head: &Head) -> Result<(), Failure> {
        let refused = |reason: &str| {
            Failure::Refused(format!("hard link to {:?}: {reason}", String::from_utf8_lossy(&head.link)))
        };
        let target = LayerPath::of_link(&head.link).map_err(refused)?;
        let (target_folder, target_name) = target.split().ok_or_else(|| refused("that is the root"))?;
        let from = self.open(&target_folder).map_err(|error| refused(&walk_reason(error)))?;
        let parent = self.folder(folder)?;
        linkat(&from, target_name, parent, name, AtFlags::empty()).map_err(|error| match error {
            Errno::NOENT => refused("the layer has no such file before it"),
            Errno::PERM => refused("that can't be linked to"),
            other => other.into(),
        })
    }

    fn make_special(&mut self, folder: &LayerPath, name: &[u8], head: &Head) -> Result<(), Failure> {
        let parent = self.folder(folder)?;
        let mode = Mode::from_raw_mode(head.mode);
        let device = makedev(head.device.0, head.device.1);
        match head.kind {
            Kind::Symlink if head.link.is_empty() || head.link.contains(&0) => {
                return Err(Failure::Refused("a symbolic link without a usable target".into()));
            }
            Kind::Symlink => symlinkat(head.link.as_slice(), parent, name).map_err(|error| match error {
                Errno::NAMETOOLONG => Failure::Refused("the symbolic link's target is too long".into()),
                other => other.into(),
            })?,
            Kind::Char => mknodat(parent, name, FileType::CharacterDevice, mode, device)?,
            Kind::Block => mknodat(parent, name, FileType::BlockDevice, mode, device)?,
            _ => mknodat(parent, name, FileType::Fifo, mode, 0)?,
        }
        chownat(parent, name, Some(owner(head)), Some(group(head)), AtFlags::SYMLINK_NOFOLLOW)?;
        if head.kind != Kind::Symlink {
            // The process's umask took bits away; nobody can have put a symbolic link in its place.
            rustix::fs::chmodat(parent, name, mode, AtFlags::empty())?;
        }
        Ok(utimensat(parent, name, &times((head.mtime_s, head.mtime_ns)), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Removes what an earlier entry of that name made.
    fn clear(&mut self, folder: &LayerPath, name: &[u8]) -> Result<(), Failure> {
        let parent = self.folder(folder)?;
        match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => {
                let path = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd())).join(OsStr::from_bytes(name));
                let removed = std::fs::remove_dir_all(path).map_err(Failure::Write);
                // The folder that is remembered may have been in it.
                self.last = None;
                removed
            }
            Err(error) => Err(error.into()),
        }
    }

    /// A folder of the tree, made with its parents if absent (archives may leave them out).
    fn folder(&mut self, path: &LayerPath) -> Result<BorrowedFd<'_>, Failure> {
        if path.parts().is_empty() {
            return Ok(self.root.as_fd());
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let folder = match self.open(path) {
                Err(Errno::NOENT) => self.make_parents(path)?,
                other => other.map_err(|error| match error {
                    Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Failure::Refused(walk_reason(error)),
                    error => error.into(),
                })?,
            };
            self.last = Some((path.clone(), folder));
        }
        match &self.last {
            Some((_, folder)) => Ok(folder.as_fd()),
            None => Ok(self.root.as_fd()),
        }
    }

    fn make_parents(&self, path: &LayerPath) -> Result<OwnedFd, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = self.open(&LayerPath::default())?;
        for part in path.parts() {
            match mkdirat(&folder, part.as_slice(), Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            folder = openat(&folder, part.as_slice(), flags, Mode::empty()).map_err(|error| match error {
                Errno::LOOP | Errno::NOTDIR => Failure::Refused(walk_reason(error)),
                other => other.into(),
            })?;
        }
        Ok(folder)
    }

    fn open(&self, path: &LayerPath) -> Result<OwnedFd, Errno> {
        let joined = path.parts().join(&b'/');
        let joined = if joined.is_empty() { b".".to_vec() } else { joined };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        openat2(&self.root, joined, flags, Mode::empty(), resolve)
    }
}

fn walk_reason(error: Errno) -> String {
    match error {
        Errno::LOOP | Errno::NOTDIR => "a folder on the way is a symbolic link or no folder".into(),
        Errno::XDEV => "the way leads out of the layer".into(),
        Errno::NOENT => "the layer has no such folder".into(),
        other => other.to_string(),
    }
}

fn kind_of(parent: BorrowedFd<'_>, name: &[u8]) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode))
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn dress_folder(folder: &OwnedFd, head: &Head) -> Result<(), Failure> {
    dress(folder, head)
}

/// Owner, mode, attributes, in this order: a change of owner drops set-user-ID bits and capabilities.
fn dress(file: &impl AsFd, head: &Head) -> Result<(), Failure> {
    fchown(file, Some(owner(head)), Some(group(head)))?;
    fchmod(file, Mode::from_raw_mode(head.mode))?;
    for (name, value) in head.xattrs.iter().filter(|(name, _)| is_wanted(name)) {
        fsetxattr(file, name.as_slice(), value, XattrFlags::empty()).map_err(|error| match error {
            Errno::INVAL | Errno::RANGE | Errno::TOOBIG => {
                Failure::Refused(format!("attribute {:?} can't be set ({error})", String::from_utf8_lossy(name)))
            }
            other => other.into(),
        })?;
    }
    Ok(())
}

/// Attributes that mean something in a container. Others must not come from an archive: `trusted.overlay.*` would
/// let it redirect the overlay, labels of security modules are the host's.
fn is_wanted(name: &[u8]) -> bool {
    !name.contains(&0)
        && (name.starts_with(b"user.")
            || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"))
}

fn owner(head: &Head) -> Uid {
    Uid::from_raw(head.uid)
}

fn group(head: &Head) -> Gid {
    Gid::from_raw(head.gid)
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
