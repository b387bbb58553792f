//! A root of a container and what lies in it. All resolution is the kernel's, with the root as `/` (openat2(2),
//! `RESOLVE_IN_ROOT`), so neither a link of the image nor one that is made meanwhile leads out of it.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags, openat2, statx};
use rustix::io::Errno;

/// How often a resolution is tried again that a concurrent change disturbed.
const MAX_TRIES: usize = 16;
/// Most entries of one folder that are looked at.
const MAX_ENTRIES: usize = 1_000_000;

/// A root of a container.
pub struct Root {
    fd: OwnedFd,
    base: u32,
}

impl Root {
    /// The tree below `fd`, in which the container's user 0 is `base`.
    pub fn new(fd: OwnedFd, base: u32) -> Self {
        Self { fd, base }
    }

    /// Opens a path as the container would, following links inside the root.
    pub fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        self.resolve(path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
    }

    /// Opens a path that has no links in it.
    pub fn open_exact(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
        self.resolve(path, flags, Mode::empty(), resolve)
    }

    fn resolve(&self, path: &Path, flags: OFlags, mode: Mode, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..MAX_TRIES {
            match openat2(&self.fd, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// The host's number of the container's root.
    pub fn base(&self) -> u32 {
        self.base
    }

    /// The host's IDs in the container's numbers; what isn't mapped is nobody's, as inside.
    pub fn inside(&self, uid: u32, gid: u32) -> (u64, u64) {
        const NOBODY: u64 = 65_534;
        let map = |id: u32| id.checked_sub(self.base).map_or(NOBODY, u64::from);
        (map(uid), map(gid))
    }

    /// The container's IDs in the host's numbers; one that is out of range becomes root's.
    pub fn outside(&self, uid: u64, gid: u64) -> (u32, u32) {
        let map = |id: u64| u32::try_from(id).ok().and_then(|id| self.base.checked_add(id)).unwrap_or(self.base);
        (map(uid), map(gid))
    }
}

/// What is known of a file.
#[derive(Clone, Debug)]
pub struct Meta {
    /// Its type.
    pub kind: FileType,
    /// Permission bits, with set-user-ID and the like.
    pub mode: u32,
    /// Owner on the host.
    pub uid: u32,
    /// Group on the host.
    pub gid: u32,
    /// Bytes.
    pub size_bytes: u64,
    /// Changed last, seconds since the Unix epoch.
    pub mtime_s: i64,
    /// Major and minor number of a device node.
    pub device: (u32, u32),
    /// What tells files apart.
    pub identity: (u32, u32, u64),
    /// How many names it has.
    pub links: u32,
    /// The mount that it is on.
    pub mount: u64,
}

impl Meta {
    /// Of `name` in a folder, without following a link; an empty name is the folder itself.
    pub fn of(folder: BorrowedFd<'_>, name: &OsStr) -> io::Result<Self> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
        Ok(statx(folder, name, flags, wanted)?.into())
    }

    /// Whether overlayfs says with it that something below is deleted (kernel: filesystems/overlayfs.rst).
    pub fn is_whiteout(&self) -> bool {
        self.kind == FileType::CharacterDevice && self.device == (0, 0)
    }

    /// Whether it is a folder.
    pub fn is_folder(&self) -> bool {
        self.kind == FileType::Directory
    }
}

impl From<Statx> for Meta {
    fn from(stat: Statx) -> Self {
        Self {
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            size_bytes: stat.stx_size,
            mtime_s: stat.stx_mtime.tv_sec,
            device: (stat.stx_rdev_major, stat.stx_rdev_minor),
            identity: (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
            links: stat.stx_nlink,
            mount: stat.stx_mnt_id,
        }
    }
}

/// Names in a folder, sorted, without `.` and `..`.
pub fn names(folder: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_owned());
        }
        if names.len() > MAX_ENTRIES {
            return Err(io::Error::other(format!("a folder has more than {MAX_ENTRIES} entries")));
        }
    }
    names.sort();
    Ok(names)
}

/// Whether something that was named a moment ago isn't there any more, or is of another kind now.
pub fn gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}
