//! What an entry's header, and the extended ones before it, say of the entry.

use std::collections::BTreeMap;
use std::io;

use super::archive::bad;
use super::pax::{pax_number, pax_time};
use super::sparse;

/// Extended attributes of one entry.
const MAX_XATTRS: usize = 64;
/// Prefix of extended attributes in pax records.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Hard link to an earlier entry.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Folder.
    Folder,
    /// Named pipe.
    Fifo,
}

/// Head of an entry. Its content, `size_bytes` long, is read from [`Archive::content`].
#[derive(Clone, Debug)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Path as in the archive.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits with set-user-ID and the like.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime_s: i64,
    /// Nanoseconds beyond.
    pub mtime_ns: u32,
    /// Device number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the content.
    pub size_bytes: u64,
    /// A sparse file: where its content belongs.
    pub sparse: Option<sparse::Map>,
}

impl Head {
    /// Length of the file, holes included.
    pub fn real_bytes(&self) -> u64 {
        self.sparse.as_ref().map_or(self.size_bytes, |map| map.real_bytes)
    }
}

/// What the extended headers before an entry say of it.
#[derive(Default)]
pub(super) struct Extended {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub records: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// Reads an entry's head, but for where the content of a sparse file belongs.
pub(super) fn head(
    kind: Kind,
    header: &tar::Header,
    records: &BTreeMap<Vec<u8>, Vec<u8>>,
    extended: Extended,
) -> io::Result<Head> {
    let record = |name: &str| records.get(name.as_bytes());
    let old = header.as_old();
    let (mtime_s, mtime_ns) = match record("mtime") {
        Some(text) => pax_time(text).ok_or_else(|| bad("an unusable time in a pax header"))?,
        None => (i64::try_from(number(&old.mtime, || header.mtime())?).unwrap_or(i64::MAX), 0),
    };
    let path = record("path").cloned().or(extended.path).unwrap_or_else(|| header.path_bytes().into_owned());
    let link = record("linkpath")
        .cloned()
        .or(extended.link)
        .unwrap_or_else(|| header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default());
    let device = (header.device_major().ok().flatten().unwrap_or(0), header.device_minor().ok().flatten().unwrap_or(0));
    let size = match record("size") {
        Some(text) => pax_number(text).ok_or_else(|| bad("an unusable size in a pax header"))?,
        None => number(&old.size, || header.entry_size())?,
    };
    // Before POSIX, folders were regular files whose name ends in a slash.
    let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Folder } else { kind };
    let xattrs: Vec<_> = records
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(XATTR_PREFIX)?.to_vec(), value.clone())))
        .collect();
    if xattrs.len() > MAX_XATTRS {
        return Err(bad(format!("more than {MAX_XATTRS} extended attributes on one entry")));
    }
    Ok(Head {
        kind,
        path,
        link,
        mode: number(&old.mode, || header.mode())? & 0o7777,
        uid: id(record("uid"), number(&old.uid, || header.uid())?)?,
        gid: id(record("gid"), number(&old.gid, || header.gid())?)?,
        mtime_s,
        mtime_ns,
        device,
        xattrs,
        // Only regular files have content; what a header claims for others is a relic (hard links in old formats).
        size_bytes: if matches!(kind, Kind::File) { size } else { 0 },
        sparse: None,
    })
}

/// A number of a header. Some programs leave fields blank; readers take those for 0, as GNU tar and Go's library do.
pub(super) fn number<T: Default>(field: &[u8], read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(T::default()) } else { read() }
}

fn id(record: Option<&Vec<u8>>, header: u64) -> io::Result<u32> {
    let value = match record {
        Some(text) => pax_number(text).ok_or_else(|| bad("an unusable user or group in a pax header"))?,
        None => header,
    };
    // 2^32-1 means "no one" to the kernel.
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| bad(format!("user or group {value} is too large")))
}
