//! A whole stream unpacked: digested, decompressed, digested, made into objects and a recipe, without a copy of it
//! anywhere.

use std::fs::File;
use std::io::{self, Read};

use super::archive::{Archive, Note};
use super::codec::Decoder;
use super::head::Head;
use super::recipe::Writer;
use super::walk::{Contents, Failure, MAX_LAYER_BYTES, NoteError, read_error, walk};
use crate::digest::{Digest, HashRead};
use crate::error::Error;
use crate::objects::{Object, Stage};
use crate::tree::{Body, Tree};

/// Longest content that is kept with the metadata: an object costs two blocks, an inode and two writes that are waited
/// for. Half of the files of a distribution are no longer, yet they are a thirtieth of its bytes.
const INLINE_BYTES: u64 = 2048;
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
        self.0.raw(bytes).map_err(|source| io::Error::new(source.kind(), NoteError(source)))
    }
}

/// Unpacks a stream, compressed or not: contents become objects, and the recipe notes the rest. Also returns which
/// objects the layer has. `label` names the layer in errors.
pub fn unpack(
    stage: Stage,
    recipe: File,
    label: &str,
    stream: &mut dyn Read,
) -> Result<(Measured, Vec<Object>), Error> {
    let mut objects = Vec::new();
    let measured = through(label, stream, |archive| {
        let (size_bytes, found) = files(stage, recipe, label, archive)?;
        objects = found;
        Ok(size_bytes)
    })?;
    Ok((measured, objects))
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

/// What a stream's contents become: objects, or parts of the recipe.
struct Keep(Stage);

impl<R: Read> Contents<R, Recipe> for Keep {
    fn take(&mut self, archive: &mut Archive<R, Recipe>, head: &Head) -> Result<Body, Failure> {
        if head.sparse.is_none() && head.size_bytes <= INLINE_BYTES {
            // The recipe takes note of it as it passes.
            io::copy(&mut archive.content(false), &mut io::sink()).map_err(Failure::Read)?;
            return Ok(Body::Inline(0, 0));
        }
        let object = self.0.keep(&mut archive.content(true), head)?;
        let whole = [(0, head.size_bytes)];
        let segments = head.sparse.as_ref().map_or(&whole[..], |map| &map.segments);
        archive.note().0.object(&object, segments).map_err(Failure::Write)?;
        Ok(Body::Object(object, head.real_bytes()))
    }
}

fn files(stage: Stage, recipe: File, label: &str, stream: &mut dyn Read) -> Result<(u64, Vec<Object>), Error> {
    let disk_error = |source| Error::Io { operation: "writing the recipe of", path: label.to_owned(), source };
    let mut archive = Archive::noting(stream, Recipe(Writer::new(recipe).map_err(disk_error)?));
    let mut keep = Keep(stage);
    // Only for what its making refuses.
    let size_bytes = walk(label, &mut archive, &mut Tree::default(), &mut keep)?;
    archive.trailer(MAX_TRAILER_BYTES).map_err(|source| read_error(label.to_owned(), source))?;
    archive.into_note().0.finish().map_err(disk_error)?;
    Ok((size_bytes, keep.0.finish()))
}
