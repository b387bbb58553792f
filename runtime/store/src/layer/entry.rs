//! One entry made into a file. Every path is walked by the kernel below the layer's root, without symbolic links
//! (openat2), so an archive can't reach anything else, however it orders its entries.
//!
//! A folder's time is put back whenever the entries leave it: so it needn't be remembered until the end, however many
//! folders there are.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown,
    fsetxattr, fstatvfs, ftruncate, futimens, linkat, makedev, mkdirat, mknodat, openat, openat2, renameat, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{Head, Kind};
use super::assemble::MAX_MOVED;
use super::path::LayerPath;

/// Buffer for the content of files.
const COPY_BYTES: usize = 64 * 1024;
/// Marks a folder whose lower layers don't show through (kernel: Documentation/filesystems/overlayfs.rst).
const OPAQUE_XATTR: &str = "trusted.overlay.opaque";
/// Where files wait that later entries took the place of.
const MOVED: &str = "moved";
/// Bytes written between two looks at what is free.
const LOOK_BYTES: u64 = 16 << 20;
/// Bytes left free for what runs, or a fiftieth of the disk where that is less.
const RESERVE_BYTES: u64 = 256 << 20;

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
    layer: OwnedFd,
    root: OwnedFd,
    /// The folder of the entry before: archives go folder by folder.
    last: Option<Current>,
    buffer: Vec<u8>,
    /// Bytes written since the last look at what is free.
    written: u64,
    moved: Vec<(Vec<u8>, u32)>,
    moved_count: u32,
}

/// A folder in which entries are being made, and the time that it is to have afterwards.
struct Current {
    path: LayerPath,
    folder: OwnedFd,
    times: Timestamps,
}

impl Tree {
    /// A tree in `fs` below the folder of a layer.
    pub fn new(layer: OwnedFd) -> Result<Self, Failure> {
        let root = openat(&layer, "fs", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let buffer = vec![0; COPY_BYTES];
        Ok(Self { layer, root, last: None, buffer, written: LOOK_BYTES, moved: Vec::new(), moved_count: 0 })
    }

    /// What has been moved out of the way since the last call: its path, and its number in `moved`.
    pub fn take_moved(&mut self) -> Vec<(Vec<u8>, u32)> {
        std::mem::take(&mut self.moved)
    }

    /// Ends the making: all entries have been made.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.leave()
    }

    /// Makes an entry, in place of what an earlier entry of that name made.
    pub fn make(&mut self, path: &LayerPath, head: &Head, content: &mut impl Read) -> Result<(), Failure> {
        let Some((folder, name)) = path.split() else {
            if head.kind != Kind::Folder {
                return Err(Failure::Refused("the root of a layer must be a folder".into()));
            }
            self.leave()?;
            dress(&self.root, head)?;
            return Ok(futimens(&self.root, &times((head.mtime_s, head.mtime_ns)))?);
        };
        if self.last.as_ref().is_some_and(|last| last.path == *path) {
            // Its own time is among what this entry says.
            self.last = None;
        }
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
                    self.clear(folder, name)?;
                    mkdirat(self.folder(folder)?, name, Mode::RWXU)?;
                }
            }
            other => other?,
        }
        let parent = self.folder(folder)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = openat(parent, name, flags, Mode::empty())?;
        if opaque {
            fsetxattr(&made, OPAQUE_XATTR, b"y", XattrFlags::empty())?;
        }
        dress(&made, head)?;
        Ok(futimens(&made, &times((head.mtime_s, head.mtime_ns)))?)
    }

    fn make_file(
        &mut self,
        folder: &LayerPath,
        name: &[u8],
        head: &Head,
        content: &mut impl Read,
    ) -> Result<(), Failure> {
        let parent = self.folder(folder)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = std::fs::File::from(openat(parent, name, flags, Mode::RUSR | Mode::WUSR)?);
        match &head.sparse {
            None => self.copy(content, &mut file)?,
            Some(map) => {
                ftruncate(&file, map.real_bytes).map_err(|error| match error {
                    Errno::FBIG | Errno::INVAL => Failure::Refused("the file is too large for the disk".into()),
                    other => other.into(),
                })?;
                for (offset, length) in &map.segments {
                    file.seek(SeekFrom::Start(*offset)).map_err(Failure::Write)?;
                    self.copy(&mut content.take(*length), &mut file)?;
                }
            }
        }
        dress(&file, head)?;
        Ok(futimens(&file, &times((head.mtime_s, head.mtime_ns)))?)
    }

    fn copy(&mut self, content: &mut impl Read, file: &mut std::fs::File) -> Result<(), Failure> {
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.written += count as u64;
                    self.look()?;
                    file.write_all(self.buffer.get(..count).unwrap_or_default()).map_err(Failure::Write)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Read(error)),
            }
        }
    }

    /// Looks now and then at what is free: the last of it belongs to what runs.
    fn look(&mut self) -> Result<(), Failure> {
        if self.written >= LOOK_BYTES {
            self.written = 0;
            let disk = fstatvfs(&self.root)?;
            let reserve = RESERVE_BYTES.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 50);
            if disk.f_bavail.saturating_mul(disk.f_frsize) < reserve + LOOK_BYTES.min(reserve) {
                return Err(Errno::NOSPC.into());
            }
        }
        Ok(())
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

    /// Takes away what an earlier entry of that name made. Contents are kept aside: the layer's archive has them.
    fn clear(&mut self, folder: &LayerPath, name: &[u8]) -> Result<(), Failure> {
        let parent = self.folder(folder)?;
        let there = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        let has_content = match FileType::from_raw_mode(there.st_mode) {
            FileType::Directory => true,
            FileType::RegularFile => there.st_size > 0,
            _ => false,
        };
        if !has_content {
            return Ok(unlinkat(parent, name, AtFlags::empty())?);
        }
        let number = self.moved_count;
        if number >= MAX_MOVED {
            return Err(Failure::Refused(format!("more than {MAX_MOVED} entries take the place of earlier ones")));
        }
        match mkdirat(&self.layer, MOVED, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        renameat(self.current(), name, &self.layer, format!("{MOVED}/{number}"))?;
        let mut path = folder.clone();
        path.push(name);
        self.moved.push((path.joined(), number));
        self.moved_count += 1;
        Ok(())
    }

    /// A folder of the tree, made with its parents if absent (archives may leave them out).
    fn folder(&mut self, path: &LayerPath) -> Result<BorrowedFd<'_>, Failure> {
        if self.last.as_ref().is_none_or(|last| last.path != *path) {
            self.leave()?;
            let folder = match self.open(path) {
                Err(Errno::NOENT) => self.make_parents(path)?,
                other => other.map_err(|error| match error {
                    Errno::LOOP | Errno::NOTDIR | Errno::XDEV => Failure::Refused(walk_reason(error)),
                    error => error.into(),
                })?,
            };
            let times = times_of(&folder)?;
            self.last = Some(Current { path: path.clone(), folder, times });
        }
        Ok(self.current())
    }

    /// What [`Tree::folder`] returned last.
    fn current(&self) -> BorrowedFd<'_> {
        self.last.as_ref().map_or(self.root.as_fd(), |last| last.folder.as_fd())
    }

    /// Puts back the time of the folder that entries were made in.
    fn leave(&mut self) -> Result<(), Failure> {
        match self.last.take() {
            Some(last) => Ok(utimensat(&last.folder, ".", &last.times, AtFlags::empty())?),
            None => Ok(()),
        }
    }

    fn make_parents(&self, path: &LayerPath) -> Result<OwnedFd, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = self.open(&LayerPath::default())?;
        for part in path.parts() {
            let times = times_of(&folder)?;
            match mkdirat(&folder, part.as_slice(), Mode::from_raw_mode(0o755)) {
                Ok(()) => utimensat(&folder, ".", &times, AtFlags::empty())?,
                Err(Errno::EXIST) => {}
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
        let joined = path.joined();
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

fn times_of(folder: &OwnedFd) -> Result<Timestamps, Errno> {
    let stat = rustix::fs::fstat(folder)?;
    let modified = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.cast_signed() };
    Ok(Timestamps { last_access: modified, last_modification: modified })
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
