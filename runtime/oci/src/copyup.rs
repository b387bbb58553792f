//! `tmpcopyup`: what a new file system covers is copied into it. All is done through descriptors of folders, never
//! through a link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};

/// Deepest folder.
const MAX_DEPTH: usize = 64;
/// Most files.
const MAX_FILES: usize = 100_000;

/// Copies a folder's content with owners, modes and times; sockets and devices are left out.
pub(crate) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let mut left = MAX_FILES;
    let (from, to) = (open(from, ".", OFlags::DIRECTORY)?, open(to, ".", OFlags::DIRECTORY)?);
    folder(&from, to.as_fd(), 0, &mut left)?;
    settle(to.as_fd(), &rustix::fs::fstat(&from)?)
}

fn open(at: BorrowedFd<'_>, name: impl rustix::path::Arg, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    Ok(rustix::fs::openat(at, name, flags, Mode::empty())?)
}

fn folder(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize, left: &mut usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *left = left.checked_sub(1).ok_or_else(|| io::Error::from_raw_os_error(libc::E2BIG))?;
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::from_raw_mode(0o700))?;
                let made = open(to, name, OFlags::DIRECTORY)?;
                folder(&open(from.as_fd(), name, OFlags::DIRECTORY)?, made.as_fd(), depth + 1, left)?;
                settle(made.as_fd(), &stat)?;
            }
            FileType::RegularFile => {
                let mut source = File::from(open(from.as_fd(), name, OFlags::empty())?);
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut made = File::from(rustix::fs::openat(to, name, flags, mode)?);
                io::copy(&mut source, &mut made)?;
                settle(made.as_fd(), &stat)?;
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target.as_c_str(), to, name)?;
                let (uid, gid) = owner(&stat);
                rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn owner(stat: &Stat) -> (Uid, Gid) {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}

/// Owner first: a change of it takes mode bits away.
fn settle(fd: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(fd, Some(uid), Some(gid))?;
    rustix::fs::fchmod(fd, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: stat.st_atime as _, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: rustix::fs::Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ },
    };
    Ok(rustix::fs::futimens(fd, &times)?)
}
