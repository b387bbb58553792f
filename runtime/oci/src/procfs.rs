//! Files of the kernel's own proc file system: parameters, labels, mappings. What somebody mounted over one of them, or in
//! proc's place, is never written to (the class of CVE-2025-52881).

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::inroot;

/// Inode of the root of a proc file system (include/uapi/linux/fs.h, `PROCFS_ROOT_INO`).
const ROOT_INODE: u64 = 1;

/// Opens a file below `/proc`, the name relative to it. `/proc` must be a whole proc file system, and nothing may be
/// mounted on the way (`EXDEV`).
pub(crate) fn open(path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = rustix::fs::openat(CWD, "/proc", folder, Mode::empty())?;
    if !inroot::is_on_proc(&proc)? || rustix::fs::fstat(&proc)?.st_ino != ROOT_INODE {
        return Err(io::Error::other("/proc isn't a proc file system"));
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&proc, path.as_ref(), flags | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// Writes a file below `/proc` in one piece, as its files want it.
pub(crate) fn write(path: impl AsRef<Path>, value: &str) -> io::Result<()> {
    let fd = open(path, OFlags::WRONLY)?;
    match rustix::io::write(&fd, value.as_bytes())? {
        written if written == value.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_the_kernels_is_not_opened() {
        assert!(open("self/attr/current", OFlags::RDONLY).is_ok() && open("self/status", OFlags::RDONLY).is_ok());
        // A magic link leads out of proc, `..` to its parent.
        let errno = |path: &str| open(path, OFlags::PATH).err().and_then(|e| e.raw_os_error());
        assert_eq!(errno("self/root/etc"), Some(libc::ELOOP));
        assert_eq!(errno("../etc"), Some(libc::EXDEV));
        assert_eq!(errno("/etc"), Some(libc::EXDEV));
    }
}
