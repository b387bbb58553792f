//! A whole stream unpacked: digested, decompressed, digested, made into files, without a copy of it anywhere.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use super::archive::{Archive, Note};
use super::codec::Decoder;
use super::entry::{Failure, Tree};
use super::path::{LayerPath, Name, meaning};
use super::recipe::Writer;
use crate::digest::{Digest, HashRead};
use crate::error::Error;

/// Entries of one layer.
const MAX_ENTRIES: u64 = 4_000_000;
/// Unpacked bytes of one layer.
const MAX_LAYER_BYTES: u64 = 256 << 30;
/// Content of an entry that stands for no file.
const MAX_UNKEPT_BYTES: u64 = 4096;
/// Bytes that may follow the end of an archive (programs pad to their block size), and a compressed stream.
const MAX_TRAILER_BYTES: u64 = 16 << 20;

/// What unpacking found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Digest of the stream as it came.
    pub blob: Digest,
    /// Its length.
    pub blob_bytes: u64,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Its length.
    pub archive_bytes: u64,
    /// Bytes of all files' contents.
    pub size_bytes: u64,
}

/// Everything but contents goes into the recipe.
struct Recipe(Writer<File>);

impl Note for Recipe {
    fn note(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.raw(bytes).map_err(|source| io::Error::new(source.kind(), RecipeError(source)))
    }
}

/// A failure of our disk, told from failures of the stream.
#[derive(Debug, thiserror::Error)]
#[error("writing the recipe of the archive")]
struct RecipeError(#[source] io::Error);

/// Unpacks a stream, compressed or not, into `fs` of a layer's folder, and notes in `recipe` how it was put together.
/// `label` names the layer in errors.
pub fn unpack(layer: OwnedFd, recipe: File, label: &str, stream: &mut dyn Read) -> Result<Measured, Error> {
    through(label, stream, |archive| files(layer, recipe, label, archive))
}

/// Digests a stream without unpacking it, for a layer that may be here already.
pub fn measure(label: &str, stream: &mut dyn Read) -> Result<Measured, Error> {
    through(label, stream, |_| Ok(0))
}

fn through(
    label: &str,
    stream: &mut dyn Read,
    consume: impl FnOnce(&mut dyn Read) -> Result<u64, Error>,
) -> Result<Measured, Error> {
    let mut blob = HashRead::new(stream);
    let read_error = |source| Error::Read { what: label.to_owned(), source };
    let result = (|| {
        let mut decoder = Decoder::new(&mut blob).map_err(read_error)?;
        let mut archive = HashRead::new(&mut decoder);
        let size_bytes = consume(&mut archive)?;
        // The diff ID covers what follows the last entry as well; the blob's digest what follows the last frame.
        let limit = if size_bytes == 0 { MAX_LAYER_BYTES } else { MAX_TRAILER_BYTES };
        drain(&mut archive, limit).map_err(read_error)?;
        let (diff_id, archive_bytes) = archive.finish();
        drain(decoder.rest(), MAX_TRAILER_BYTES).map_err(read_error)?;
        Ok((diff_id, archive_bytes, size_bytes))
    })();
    let (diff_id, archive_bytes, size_bytes) = match result {
        Ok(found) => found,
        Err(error) => return Err(forged(label, blob, error)),
    };
    let (digest, blob_bytes) = blob.finish();
    Ok(Measured { blob: digest, blob_bytes, diff_id, archive_bytes, size_bytes })
}

/// A forged stream shows as junk before its digest is known. So the rest is read for the digest, and both are told.
fn forged(label: &str, mut blob: HashRead<&mut dyn Read>, error: Error) -> Error {
    let is_junk = match &error {
        Error::Entry { .. } => true,
        Error::Read { source, .. } => {
            keel_fetch::Error::from_io(source).is_none() && source.kind() != io::ErrorKind::StorageFull
        }
        _ => false,
    };
    if !is_junk || drain(&mut blob, MAX_LAYER_BYTES).is_err() {
        return error;
    }
    let (got, _) = blob.finish();
    Error::Junk { what: label.to_owned(), got, reason: Box::new(error) }
}

fn drain(stream: &mut (impl Read + ?Sized), limit: u64) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut total: u64 = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => total += count as u64,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if total > limit {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too much follows the end of the archive"));
        }
    }
}

fn files(layer: OwnedFd, recipe: File, label: &str, stream: &mut dyn Read) -> Result<u64, Error> {
    let disk_error = |source| Error::Io { operation: "writing the recipe of", path: label.to_owned(), source };
    let read_error = |source: io::Error| match source.downcast::<RecipeError>() {
        Ok(RecipeError(source)) => disk_error(source),
        Err(source) => Error::Read { what: label.to_owned(), source },
    };
    let mut archive = Archive::noting(stream, Recipe(Writer::new(recipe).map_err(disk_error)?));
    let mut tree = Tree::new(layer).map_err(|failure| explain(label, b"/", failure))?;
    let mut size_bytes: u64 = 0;
    for count in 0.. {
        let Some(head) = archive.next().map_err(read_error)? else { break };
        let explain = |failure| explain(label, &head.path, failure);
        let refuse = |reason: &str| explain(Failure::Refused(reason.into()));
        size_bytes = size_bytes.saturating_add(head.size_bytes);
        if count >= MAX_ENTRIES || size_bytes > MAX_LAYER_BYTES {
            return Err(refuse("the layer is too large"));
        }
        let path = LayerPath::new(&head.path).map_err(refuse)?;
        let name = match path.split() {
            None => Name::Plain(b""),
            Some((_, name)) => meaning(name).map_err(refuse)?,
        };
        let folder = path.split().map(|(folder, _)| folder).unwrap_or_default();
        match name {
            // What isn't kept in a file goes into the recipe.
            Name::Ignored | Name::Opaque | Name::Whiteout(_) if head.size_bytes > MAX_UNKEPT_BYTES => {
                return Err(refuse("a whiteout with content"));
            }
            Name::Ignored => {}
            Name::Opaque => tree.hide_below(&folder).map_err(explain)?,
            Name::Whiteout(hidden) => tree.hide(&folder, hidden).map_err(explain)?,
            Name::Plain(_) => {
                tree.make(&path, &head, &mut archive.content(true)).map_err(explain)?;
                let recipe = &mut archive.note().0;
                for (path, number) in tree.take_moved() {
                    recipe.moved(&path, number).map_err(disk_error)?;
                }
                let whole = [(0, head.size_bytes)];
                let segments = head.sparse.as_ref().map_or(&whole[..], |map| &map.segments);
                if head.size_bytes > 0 {
                    recipe.file(&path.joined(), segments).map_err(disk_error)?;
                }
            }
        }
    }
    tree.finish().map_err(|failure| explain(label, b"/", failure))?;
    archive.trailer(MAX_TRAILER_BYTES).map_err(read_error)?;
    archive.into_note().0.finish().map_err(disk_error)?;
    Ok(size_bytes)
}

fn explain(label: &str, path: &[u8], failure: Failure) -> Error {
    let shown = String::from_utf8_lossy(path).chars().take(300).collect::<String>();
    match failure {
        Failure::Refused(reason) => Error::Entry { layer: label.to_owned(), path: shown, reason },
        Failure::Read(source) => Error::Read { what: format!("{label}, content of {shown:?}"), source },
        Failure::Write(source) => Error::Io { operation: "unpacking", path: format!("{shown:?} of {label}"), source },
    }
}
