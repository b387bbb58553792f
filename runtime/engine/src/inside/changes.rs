//! What a container has changed of its image: its upper folder, read against the image's tree.
//!
//! The upper folder alone doesn't tell all: of a file whose owner or mode was changed it has no content
//! (`trusted.overlay.metacopy`), of a folder that was renamed it doesn't have what is in it
//! (`trusted.overlay.redirect`). So contents, and what is in such folders, are read from the view: the image with the
//! changes on top (kernel: Documentation/filesystems/overlayfs.rst).

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::pack::Packer;
use super::root::{Meta, Root, gone, names};

/// Most changes that are told.
const MAX_CHANGES: usize = 1_000_000;
/// What the engine itself mounts in every container: their mount points are no changes of the container's.
const OURS: [&str; 8] = ["dev", "etc", "etc/hostname", "etc/hosts", "etc/resolv.conf", "proc", "sys", "run"];

/// Kind of a change, with its number in Docker's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is in the image, and other now; of a folder also: something in it.
    Modified = 0,
    /// It isn't in the image.
    Added = 1,
    /// It is in the image alone.
    Deleted = 2,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Path, without a slash at its beginning.
    pub path: PathBuf,
    /// What became of it.
    pub kind: ChangeKind,
}

/// All changes, in the order of their paths. `upper` is overlayfs' upper folder, `lower` the image, `view` both. `ran`: a
/// container ran there, so that mount points which the engine made are no changes.
pub fn changes(upper: &Root, lower: &Root, view: &Root, ran: bool) -> io::Result<Vec<Change>> {
    let mut found = Vec::new();
    // With each folder, whether it, or one above it, was renamed.
    let mut folders = vec![(PathBuf::new(), false)];
    while let Some((path, in_renamed)) = folders.pop() {
        let open = |root: &Root| match root.open_exact(&path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if gone(&error) => Ok(None),
            other => other.map(Some),
        };
        let Some(mut folder) = open(if in_renamed { view } else { upper })? else { continue };
        let renamed = in_renamed || has_attribute(&folder, "overlay.redirect", |_| true);
        if renamed && !in_renamed {
            let Some(seen) = open(view)? else { continue };
            folder = seen;
        }
        let below = lower.open_exact(&path, OFlags::PATH | OFlags::DIRECTORY).ok();
        let opaque = renamed || has_attribute(&folder, "overlay.opaque", |value| value == b"y");
        let entries = names(&folder)?;
        for name in &entries {
            let meta = match Meta::of(folder.as_fd(), name) {
                Err(error) if gone(&error) => continue,
                other => other?,
            };
            let was = below.as_ref().and_then(|below| Meta::of(below.as_fd(), name).ok());
            let path = path.join(name);
            if meta.is_folder() {
                folders.push((path.clone(), renamed));
            }
            if let Some(kind) = judge(&path, &meta, was.as_ref(), opaque, ran) {
                found.push(Change { path, kind });
            }
        }
        if let (true, Ok(below)) = (opaque, lower.open_exact(&path, OFlags::RDONLY | OFlags::DIRECTORY)) {
            let hidden = names(&below)?.into_iter().filter(|name| !entries.contains(name));
            found.extend(hidden.map(|name| Change { path: path.join(name), kind: ChangeKind::Deleted }));
        }
        if found.len() > MAX_CHANGES {
            return Err(io::Error::other(format!("more than {MAX_CHANGES} changes")));
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(with_folders(found))
}

/// What one entry of the upper folder says; `None`: nothing.
fn judge(path: &Path, meta: &Meta, was: Option<&Meta>, opaque: bool, ran: bool) -> Option<ChangeKind> {
    if meta.is_whiteout() {
        return (was.is_some() && !opaque).then_some(ChangeKind::Deleted);
    }
    let Some(was) = was else {
        let ours =
            OURS.iter().any(|ours| path == Path::new(ours)) || path.starts_with("dev") || path.starts_with("sys");
        let empty = meta.is_folder() || meta.size_bytes == 0;
        return (!(ran && ours && empty)).then_some(ChangeKind::Added);
    };
    // Overlayfs copies the folders above a change, too: that alone is none.
    let same = meta.is_folder() && was.is_folder() && (meta.mode, meta.uid, meta.gid) == (was.mode, was.uid, was.gid);
    (!same).then_some(ChangeKind::Modified)
}

/// Adds the folders that a change lies in and that are not changed themselves.
fn with_folders(found: Vec<Change>) -> Vec<Change> {
    let known: std::collections::BTreeSet<PathBuf> = found.iter().map(|change| change.path.clone()).collect();
    let mut above = std::collections::BTreeSet::new();
    for change in &found {
        for folder in change.path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()) {
            if !known.contains(folder) && !above.insert(folder.to_path_buf()) {
                break;
            }
        }
    }
    let mut all = found;
    all.extend(above.into_iter().map(|path| Change { path, kind: ChangeKind::Modified }));
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// Writes the changes as a layer (OCI image specification, layer.md).
pub fn layer(view: &Root, changes: &[Change], out: &mut dyn Write) -> io::Result<()> {
    let mut packer = Packer::new(view, out);
    for change in changes {
        let shown = change.path.as_os_str().as_bytes();
        if change.kind == ChangeKind::Deleted {
            packer.whiteout(shown)?;
            continue;
        }
        let above = change.path.parent().unwrap_or(Path::new(""));
        let opened = view.open_exact(above, OFlags::PATH | OFlags::DIRECTORY);
        let name = change.path.file_name().unwrap_or_default();
        let entry = opened.and_then(|folder| Ok((Meta::of(folder.as_fd(), name)?, folder)));
        match entry {
            Ok((meta, folder)) => packer.entry(&folder, name, &meta, shown)?,
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    packer.finish()
}

/// Bytes of the files in a tree, each counted once.
pub fn size_bytes(tree: &Root) -> io::Result<u64> {
    let mut total = 0_u64;
    let mut seen = std::collections::HashSet::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(path) = folders.pop() {
        let folder = match tree.open_exact(&path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(error) if gone(&error) => continue,
            other => other?,
        };
        for name in names(&folder)? {
            let Ok(meta) = Meta::of(folder.as_fd(), &name) else { continue };
            if meta.is_folder() {
                folders.push(path.join(name));
            } else if meta.links < 2 || seen.insert(meta.identity) {
                total = total.saturating_add(meta.size_bytes);
            }
        }
    }
    Ok(total)
}

/// Whether overlayfs has noted something about a folder.
fn has_attribute(folder: &OwnedFd, name: &str, is_meant: impl Fn(&[u8]) -> bool) -> bool {
    // A redirect is a path.
    let mut value = [0_u8; 4096];
    ["trusted.", "user."].iter().any(|prefix| {
        let length = rustix::fs::fgetxattr(folder, OsStr::new(&format!("{prefix}{name}")), &mut value);
        length.is_ok_and(|length| is_meant(value.get(..length).unwrap_or_default()))
    })
}
