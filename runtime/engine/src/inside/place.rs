//! A path that a client named: what it points at, and how Docker's API describes that.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, OFlags};

use super::root::{Meta, Root};

/// Longest path (`PATH_MAX`).
const MAX_PATH_BYTES: usize = 4095;

/// A place in the tree.
pub struct Place {
    /// The folder it is in, or the folder itself if `name` is empty.
    pub folder: OwnedFd,
    /// Its name there.
    pub name: OsString,
    /// What it is.
    pub meta: Meta,
    /// Name that it has in archives: the path's last word, as the client wrote it.
    pub shown: Vec<u8>,
}

/// What `HEAD /containers/{id}/archive` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStat {
    /// Last word of the path.
    pub name: String,
    /// Bytes.
    pub size_bytes: u64,
    /// Type and permissions in the bits of Go's `fs.FileMode`.
    pub go_mode: u32,
    /// Changed last, seconds since the Unix epoch.
    pub mtime_s: i64,
    /// Where a symbolic link leads to, else empty.
    pub link_target: String,
}

/// Finds `path`. A link in its last word is followed only where the path ends with `/` or `/.`.
pub fn find(root: &Root, path: &str) -> io::Result<Place> {
    if path.is_empty() || path.len() > MAX_PATH_BYTES || path.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let bare = path.trim_end_matches('/');
    let (above, last) = bare.rsplit_once('/').unwrap_or(("", bare));
    let whole = path.ends_with('/') || matches!(last, "" | "." | "..");
    let (folder, name) = if whole {
        (root.open(Path::new(path), OFlags::PATH | OFlags::DIRECTORY)?, OsString::new())
    } else {
        let above = if above.is_empty() { "/" } else { above };
        (root.open(Path::new(above), OFlags::PATH | OFlags::DIRECTORY)?, OsString::from(last))
    };
    let meta = Meta::of(folder.as_fd(), &name)?;
    let shown = if last.is_empty() { "/" } else { last };
    Ok(Place { folder, name, meta, shown: shown.into() })
}

/// The same, for a place that the client knows by another path: that one's last word is its name.
pub fn find_as(root: &Root, path: &str, known_as: &str) -> io::Result<Place> {
    let mut place = find(root, path)?;
    let bare = known_as.trim_end_matches('/');
    let last = bare.rsplit('/').next().unwrap_or(bare);
    place.shown = if last.is_empty() { "/" } else { last }.into();
    Ok(place)
}

impl Place {
    /// How Docker's API describes it.
    pub fn stat(&self) -> io::Result<PathStat> {
        let link_target = if self.meta.kind == FileType::Symlink {
            let target = rustix::fs::readlinkat(&self.folder, &self.name, Vec::new())?;
            OsStr::from_bytes(target.as_bytes()).to_string_lossy().into_owned()
        } else {
            String::new()
        };
        Ok(PathStat {
            name: String::from_utf8_lossy(&self.shown).into_owned(),
            size_bytes: self.meta.size_bytes,
            go_mode: go_mode(self.meta.kind, self.meta.mode),
            mtime_s: self.meta.mtime_s,
            link_target,
        })
    }
}

/// Bits of Go's `fs.FileMode` (package io/fs).
fn go_mode(kind: FileType, mode: u32) -> u32 {
    let kind = match kind {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special = special.iter().filter(|(bit, _)| mode & bit != 0).map(|(_, go)| go).sum::<u32>();
    kind | special | mode & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_gos() {
        assert_eq!(go_mode(FileType::Directory, 0o1777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(FileType::RegularFile, 0o4755), 1 << 23 | 0o755);
    }
}
