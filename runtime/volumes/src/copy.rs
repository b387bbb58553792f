//! An image's files become a new volume's: what is at the mount's place in the container's root is copied into a volume
//! that is empty, with owners, modes, times and links.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use crate::error::system;
use crate::{Error, Volumes};

/// Deepest folder that is copied.
const MAX_DEPTH: usize = 128;
/// Most files and folders that are copied.
const MAX_ENTRIES: usize = 1_000_000;

/// How the container's IDs look from the host: so many, from this one on. `None`: as they are.
pub type Owners = Option<(u32, u32)>;

impl Volumes {
    /// Fills a volume, if it is empty, with what is at `path` in a container's root. Nothing is there, or no folder:
    /// it stays empty. A failure leaves it empty, too.
    pub fn fill(&self, name: &str, root: BorrowedFd<'_>, path: &str, owners: Owners) -> Result<(), Error> {
        let at = self.source(name)?;
        let _held = self.hold();
        let fill = || -> io::Result<()> {
            let Some(from) = open_inside(root, path)? else { return Ok(()) };
            let to = open_folder(rustix::fs::CWD, &at)?;
            if !is_empty(&to)? {
                return Ok(());
            }
            let mut copy = Copy { owners, left: MAX_ENTRIES };
            if let Err(e) = copy.folder(&from, &to, 0) {
                for entry in std::fs::read_dir(&at)?.flatten() {
                    let folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                    let path = entry.path();
                    let _ = if folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
                }
                return Err(e);
            }
            copy.attributes(&to, &rustix::fs::fstat(&from)?)?;
            Ok(rustix::fs::syncfs(&to)?)
        };
        fill().map_err(system(name, "copy the image's files into it"))
    }
}

/// A folder of the container's root, whatever links of the image say (openat2(2), `RESOLVE_IN_ROOT`).
fn open_inside(root: BorrowedFd<'_>, path: &str) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn open_folder(at: impl AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(at, path, flags, Mode::empty())?)
}

fn is_empty(folder: &OwnedFd) -> io::Result<bool> {
    for entry in Dir::read_from(folder)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(false);
        }
    }
    Ok(true)
}

struct Copy {
    owners: Owners,
    left: usize,
}

impl Copy {
    fn folder(&mut self, from: &OwnedFd, to: &OwnedFd, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("folders are nested deeper than {MAX_DEPTH}")));
        }
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.left =
                self.left.checked_sub(1).ok_or_else(|| io::Error::other(format!("more than {MAX_ENTRIES} files")))?;
            let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
            self.entry(from, to, name, &stat, depth)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        name: &std::ffi::CStr,
        stat: &Stat,
        depth: usize,
    ) -> io::Result<()> {
        let private = Mode::from_raw_mode(0o700);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, private)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let (from, to) = (
                    rustix::fs::openat(from, name, flags, Mode::empty())?,
                    rustix::fs::openat(to, name, flags, Mode::empty())?,
                );
                self.folder(&from, &to, depth + 1)?;
                self.attributes(&to, stat)
            }
            FileType::RegularFile => {
                let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut from = File::from(rustix::fs::openat(from, name, read, Mode::empty())?);
                let mut to = File::from(rustix::fs::openat(to, name, write, private)?);
                io::copy(&mut from, &mut to)?;
                self.attributes(&to.into(), stat)
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(&target, to, name)?;
                let (uid, gid) = self.owner(stat);
                Ok(rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            // A socket without its program is of no use, and devices are no part of an image's data.
            FileType::Fifo => {
                rustix::fs::mknodat(to, name, FileType::Fifo, Mode::from_raw_mode(stat.st_mode & 0o777), 0)?;
                let (uid, gid) = self.owner(stat);
                Ok(rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?)
            }
            _ => Ok(()),
        }
    }

    /// Owner first: giving a file away takes its set-ID bits.
    fn attributes(&self, to: &OwnedFd, stat: &Stat) -> io::Result<()> {
        let (uid, gid) = self.owner(stat);
        rustix::fs::fchown(to, Some(uid), Some(gid))?;
        rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        let time = |seconds: i64, nanoseconds: u64| Timespec { tv_sec: seconds, tv_nsec: nanoseconds as i64 };
        let times = Timestamps {
            last_access: time(stat.st_atime, stat.st_atime_nsec),
            last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
        };
        Ok(rustix::fs::futimens(to, &times)?)
    }

    /// The owner in the container's own numbers, which are those of a volume's files.
    fn owner(&self, stat: &Stat) -> (Uid, Gid) {
        let own = |id: u32| match self.owners {
            Some((first, count)) => id.checked_sub(first).filter(|id| *id < count).unwrap_or(id),
            None => id,
        };
        (Uid::from_raw(own(stat.st_uid)), Gid::from_raw(own(stat.st_gid)))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::Spec;

    #[test]
    fn an_empty_volume_gets_the_images_files_once() {
        let folder = tempfile::tempdir().unwrap();
        let (root, state) = (folder.path().join("root"), folder.path().join("volumes"));
        std::fs::create_dir_all(root.join("data/sub")).unwrap();
        std::fs::create_dir_all(&state).unwrap();
        std::fs::write(root.join("data/sub/file"), "text").unwrap();
        std::fs::set_permissions(root.join("data/sub/file"), std::fs::Permissions::from_mode(0o4750)).unwrap();
        std::os::unix::fs::chown(root.join("data/sub/file"), Some(1_000_033), Some(1_000_000)).unwrap();
        std::fs::set_permissions(root.join("data/sub/file"), std::fs::Permissions::from_mode(0o4750)).unwrap();
        symlink("sub/file", root.join("data/link")).unwrap();
        // A link of the image's that would lead out of it.
        symlink("/data", root.join("alias")).unwrap();
        let volumes = Volumes::open(&state);
        volumes.create(Spec { name: "one".into(), ..Spec::default() }).unwrap();
        let fd = File::open(&root).unwrap();
        let owners = Some((1_000_000, 65_536));
        volumes.fill("one", fd.as_fd(), "/absent", owners).unwrap();
        volumes.fill("one", fd.as_fd(), "/alias", owners).unwrap();
        let data = volumes.source("one").unwrap();
        let file = std::fs::metadata(data.join("sub/file")).unwrap();
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o7777), (33, 0, 0o4750));
        assert_eq!(std::fs::read_link(data.join("link")).unwrap(), Path::new("sub/file"));
        std::fs::write(root.join("data/late"), "").unwrap();
        volumes.fill("one", fd.as_fd(), "/data", owners).unwrap();
        assert!(!data.join("late").exists(), "one that isn't empty stays as it is");
    }
}
