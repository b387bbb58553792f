//! The entries of an archive, one after the other, put into a tree.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::archive::{Archive, Note};
use super::head::{Head, Kind};
use super::path::{LayerPath, Name, meaning};
use crate::error::Error;
use crate::tree::{Attributes, Body, Device, Refused, Tree};

/// Entries of one layer.
const MAX_ENTRIES: u64 = 4_000_000;
/// Unpacked bytes of one layer, holes included.
pub const MAX_LAYER_BYTES: u64 = 256 << 30;
/// Content of an entry that stands for no file.
const MAX_UNKEPT_BYTES: u64 = 4096;
/// Longest target of a symbolic link (PATH_MAX, with its zero).
const MAX_LINK_BYTES: usize = 4095;

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

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused.0)
    }
}

/// A failure of our disk while noting what passes, told from failures of the stream.
#[derive(Debug, thiserror::Error)]
#[error("noting how the archive was put together")]
pub struct NoteError(#[source] pub io::Error);

/// Takes the contents of files.
pub trait Contents<R, N> {
    /// Takes the content of the file that the archive stands at.
    fn take(&mut self, archive: &mut Archive<R, N>, head: &Head) -> Result<Body, Failure>;
}

/// Puts all entries of an archive into a tree; returns the bytes of their contents. `label` names the layer in errors.
pub fn walk<R: Read, N: Note>(
    label: &str,
    archive: &mut Archive<R, N>,
    tree: &mut Tree,
    contents: &mut impl Contents<R, N>,
) -> Result<u64, Error> {
    let (mut size_bytes, mut real_bytes): (u64, u64) = (0, 0);
    for count in 0.. {
        let Some(head) = archive.next_head().map_err(|source| read_error(label.to_owned(), source))? else { break };
        let explain = |failure| explain(label, &head.path, failure);
        size_bytes = size_bytes.saturating_add(head.size_bytes);
        real_bytes = real_bytes.saturating_add(head.real_bytes());
        if count >= MAX_ENTRIES || real_bytes > MAX_LAYER_BYTES {
            return Err(explain(Failure::Refused("the layer is too large".into())));
        }
        entry(archive, tree, contents, &head).map_err(explain)?;
    }
    Ok(size_bytes)
}

fn entry<R: Read, N: Note>(
    archive: &mut Archive<R, N>,
    tree: &mut Tree,
    contents: &mut impl Contents<R, N>,
    head: &Head,
) -> Result<(), Failure> {
    let refuse = |reason: &str| Failure::Refused(reason.into());
    let path = LayerPath::new(&head.path).map_err(refuse)?;
    let (folder, name) = match path.split() {
        None => (LayerPath::default(), Name::Plain(b"")),
        Some((folder, name)) => (folder, meaning(name).map_err(refuse)?),
    };
    match name {
        // What stands for no file stays in the recipe.
        Name::Ignored | Name::Opaque | Name::Whiteout(_) if head.real_bytes() > MAX_UNKEPT_BYTES => {
            Err(refuse("a whiteout with content"))
        }
        Name::Ignored => Ok(()),
        Name::Opaque => Ok(tree.hide_below(&folder)?),
        Name::Whiteout(hidden) => Ok(tree.hide(&folder, hidden)?),
        Name::Plain(_) if head.kind == Kind::HardLink => link(tree, &path, &head.link),
        Name::Plain(_) => {
            let attributes = Attributes::of(head).map_err(Failure::Refused)?;
            let body = match head.kind {
                Kind::File => contents.take(archive, head)?,
                Kind::Symlink => symlink(&head.link)?,
                Kind::Char => device(Device::Char, head.device)?,
                Kind::Block => device(Device::Block, head.device)?,
                Kind::Fifo => Body::Special(Device::Fifo, 0),
                Kind::Folder | Kind::HardLink => Body::Folder(BTreeMap::new()),
            };
            Ok(tree.put(&path, attributes, body)?)
        }
    }
}

fn link(tree: &mut Tree, path: &LayerPath, target: &[u8]) -> Result<(), Failure> {
    let linked = match LayerPath::of_link(target) {
        Ok(target) => tree.link(path, &target),
        Err(reason) => Err(Refused(reason.into())),
    };
    linked.map_err(|Refused(reason)| {
        let target = String::from_utf8_lossy(target).chars().take(300).collect::<String>();
        Failure::Refused(format!("hard link to {target:?}: {reason}"))
    })
}

fn symlink(target: &[u8]) -> Result<Body, Failure> {
    match target {
        [] => Err(Failure::Refused("a symbolic link without a usable target".into())),
        target if target.contains(&0) => Err(Failure::Refused("a symbolic link without a usable target".into())),
        target if target.len() > MAX_LINK_BYTES => {
            Err(Failure::Refused("the symbolic link's target is too long".into()))
        }
        target => Ok(Body::Symlink(target.into())),
    }
}

/// A device with its number as the kernel packs it into 32 bits (`new_encode_dev`).
fn device(kind: Device, (major, minor): (u32, u32)) -> Result<Body, Failure> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(Failure::Refused(format!("device number {major}:{minor} is too large")));
    }
    Ok(Body::Special(kind, (minor & 0xff) | major << 8 | (minor & !0xff) << 12))
}

/// A stream that failed; or our disk, where that came to light while reading.
pub fn read_error(what: String, source: io::Error) -> Error {
    match source.downcast::<NoteError>() {
        Ok(NoteError(source)) => Error::Io { operation: "writing the recipe of", path: what, source },
        Err(source) => Error::Read { what, source },
    }
}

fn explain(label: &str, path: &[u8], failure: Failure) -> Error {
    let shown = String::from_utf8_lossy(path).chars().take(300).collect::<String>();
    match failure {
        Failure::Refused(reason) => Error::Entry { layer: label.to_owned(), path: shown, reason },
        Failure::Read(source) => read_error(format!("{label}, content of {shown:?}"), source),
        Failure::Write(source) => Error::Io { operation: "unpacking", path: format!("{shown:?} of {label}"), source },
    }
}
