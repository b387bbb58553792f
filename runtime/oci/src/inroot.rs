//! Paths inside the container's root, resolved by the kernel so that no symbolic link of the image leads out of it
//! (openat2(2), `RESOLVE_IN_ROOT`).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// How often a resolution is tried again that a concurrent change disturbed.
const MAX_TRIES: usize = 16;
/// Deepest path.
const MAX_DEPTH: usize = 256;

/// Which links are followed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Links {
    /// Symbolic ones, as if `/` were the root.
    Inside,
    /// None: what the runtime itself relies on isn't where an image says (the class of CVE-2023-27561).
    Refused,
}

/// Opens a path below `root`. `path` may be absolute: it is the root's.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open_with(root, path, flags, Links::Inside)
}

fn open_with(root: BorrowedFd<'_>, path: &Path, flags: OFlags, links: Links) -> io::Result<OwnedFd> {
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refused {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    for _ in 0..MAX_TRIES {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::AGAIN.into())
}

/// Opens a folder (`O_PATH`), making it and what is above it.
pub(crate) fn make_folder(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    make_at_depth(root, path, Links::Inside, 0)
}

fn make_at_depth(root: BorrowedFd<'_>, path: &Path, links: Links, depth: usize) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    // Above a relative path's first name is the root.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    match open_with(root, path, flags, links) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) && depth < MAX_DEPTH => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::NOENT.into());
    };
    let parent = make_at_depth(root, parent, links, depth + 1)?;
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => open_with(root, path, flags, links),
        Err(e) => Err(e.into()),
    }
}

/// Opens what something is mounted on (`O_PATH`), making an empty file or folder if there is nothing.
pub(crate) fn make_mount_point(root: BorrowedFd<'_>, path: &Path, file: bool, links: Links) -> io::Result<OwnedFd> {
    if !file {
        return make_at_depth(root, path, links, 0);
    }
    match open_with(root, path, OFlags::PATH, links) {
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
        other => return other,
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::NOENT.into());
    };
    let parent = make_at_depth(root, parent, links, 0)?;
    match rustix::fs::mknodat(&parent, name, FileType::RegularFile, Mode::from_raw_mode(0o644), 0) {
        Ok(()) | Err(Errno::EXIST) => open_with(root, path, OFlags::PATH, links),
        Err(e) => Err(e.into()),
    }
}

/// Whether a descriptor is of a folder.
pub(crate) fn is_folder(fd: impl AsFd) -> io::Result<bool> {
    let stat = rustix::fs::statat(fd.as_fd(), "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Whether a descriptor is on a proc file system.
pub(crate) fn is_on_proc(fd: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstatfs(fd)?.f_type == libc::PROC_SUPER_MAGIC)
}
