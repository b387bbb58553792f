//! A bundle on its way to the updater: taken from a request's body into a file on the state partition.
//!
//! The file has no name (`O_TMPFILE`, open(2)), so nothing is left of it whatever happens; the updater gets its
//! descriptor. What isn't a bundle is refused at the first header that doesn't fit, before the rest is sent.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use keel_spec::api::ErrorCode;
use keel_spec::bundle::{BLOCK_BYTES, MAX_BYTES, Reader};
use rustix::fs::{FallocateFlags, OFlags, fallocate, fstatvfs};

use crate::respond::Failure;

/// Bytes of the state partition that a bundle leaves free: containers go on writing.
const RESERVE_BYTES: u64 = 128 << 20;
/// Bytes that are taken at once.
const CHUNK_BYTES: usize = 256 << 10;
/// Bytes of a refused bundle that are still taken, to nowhere.
const MAX_REFUSED_BYTES: u64 = 16 << 20;
/// Room is made in steps of this size where the length isn't known beforehand.
const STEP_BYTES: u64 = 64 << 20;

/// Takes a bundle. `length`: what the client says that it sends.
pub fn take(folder: &Path, length: Option<u64>, mut body: impl Read) -> Result<File, Failure> {
    let mut spool = Spool::new(folder)?;
    if let Some(length) = length.filter(|length| *length > 0) {
        spool.make_room(length)?;
    }
    fill(&mut spool, &mut body).inspect_err(|_| {
        // A client that is still sending when the connection closes may never see why.
        let _ = io::copy(&mut body.take(MAX_REFUSED_BYTES), &mut io::sink());
    })?;
    Ok(spool.file)
}

fn fill(spool: &mut Spool, body: &mut dyn Read) -> Result<(), Failure> {
    let mut watch = Watch::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = body.read(&mut buffer).map_err(|error| {
            let message = format!("take the bundle: it broke off after {} bytes: {error}", watch.at);
            Failure::new(ErrorCode::BadRequest, message)
        })?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
        watch.feed(piece).map_err(refused)?;
        if watch.at > spool.room {
            spool.make_room((spool.room + STEP_BYTES).min(MAX_BYTES))?;
        }
        let written = spool.file.write_all(piece);
        written.map_err(|error| spool.failed(&error))?;
    }
    watch.reader.finish(Some(watch.at)).map_err(refused)?;
    // What was kept free for more than came goes back.
    let cut = spool.file.set_len(watch.at).and_then(|()| spool.file.rewind());
    cut.map_err(|error| spool.failed(&error))
}

fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::BadRequest, format!("take the bundle: it {error}"))
}

struct Spool<'a> {
    folder: &'a Path,
    file: File,
    /// Bytes that there is room for, for sure.
    room: u64,
}

impl<'a> Spool<'a> {
    fn new(folder: &'a Path) -> Result<Self, Failure> {
        let unnamed = i32::try_from(OFlags::TMPFILE.bits()).unwrap_or(0);
        let opened = OpenOptions::new().read(true).write(true).mode(0o600).custom_flags(unnamed).open(folder);
        let file = opened.map_err(|error| {
            Failure::internal(format!("make a file for the bundle in {}: {error}", folder.display()))
        })?;
        Ok(Self { folder, file, room: 0 })
    }

    fn failed(&self, error: &io::Error) -> Failure {
        let code = match error.kind() {
            io::ErrorKind::StorageFull => ErrorCode::Space,
            _ => ErrorCode::Internal,
        };
        Failure::new(code, format!("keep the bundle in {}: {error}", self.folder.display()))
    }

    /// Makes sure that so many bytes fit, in all.
    fn make_room(&mut self, bytes: u64) -> Result<(), Failure> {
        if bytes > MAX_BYTES || bytes <= self.room {
            let message = format!("take the bundle: it is longer than the {MAX_BYTES} bytes that a bundle may have");
            return Err(Failure::new(ErrorCode::Space, message));
        }
        let space = fstatvfs(&self.file).map_err(|error| self.failed(&error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize).saturating_add(self.room);
        if bytes.saturating_add(RESERVE_BYTES) > free {
            let message = format!(
                "take the bundle: it needs {bytes} bytes of the state partition, {} are free beside a reserve: remove \
                 images or volumes, or install from an update repository",
                free.saturating_sub(RESERVE_BYTES)
            );
            return Err(Failure::new(ErrorCode::Space, message));
        }
        fallocate(&self.file, FallocateFlags::empty(), 0, bytes).map_err(|error| self.failed(&error.into()))?;
        self.room = bytes;
        Ok(())
    }
}

/// Looks at the headers as they pass.
#[derive(Default)]
struct Watch {
    reader: Reader,
    /// Bytes that came so far.
    at: u64,
    header: Vec<u8>,
}

impl Watch {
    fn feed(&mut self, mut piece: &[u8]) -> Result<(), keel_spec::bundle::BundleError> {
        while !piece.is_empty() {
            let Some(next) = self.reader.next_header() else {
                self.at += piece.len() as u64;
                // The second block of zeros; whatever more there is, is found at the end.
                return Ok(());
            };
            let skip = next.saturating_sub(self.at).min(piece.len() as u64);
            let (_, rest) = piece.split_at(usize::try_from(skip).unwrap_or(piece.len()));
            let (part, rest) = rest.split_at(rest.len().min(BLOCK_BYTES - self.header.len()));
            self.at += skip;
            if self.at >= next {
                self.at += part.len() as u64;
                self.header.extend_from_slice(part);
                if let Some(block) = self.header.first_chunk().copied() {
                    self.header.clear();
                    self.reader.take(&block)?;
                }
            }
            piece = rest;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::bundle::{INFO_NAME, header, padding};

    fn bundle() -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, length) in [(INFO_NAME, 40), ("1.root.json", 700), ("targets/keel-cloud-1.2.3.root", 4096)] {
            bytes.extend(header(name, length).unwrap());
            bytes.resize(bytes.len() + (length + padding(length)) as usize, b'x');
        }
        bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
        bytes
    }

    /// Gives bytes in pieces of one size, as a network might.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            let (piece, rest) = self.0.split_at(count);
            buffer[..count].copy_from_slice(piece);
            self.0 = rest;
            Ok(count)
        }
    }

    #[test]
    fn a_bundle_arrives_whole_however_it_is_cut_into_pieces() {
        let (folder, bytes) = (tempfile::tempdir().unwrap(), bundle());
        for (size, length) in [(1, None), (511, None), (513, Some(bytes.len() as u64)), (1 << 20, Some(1 << 20))] {
            let file = take(folder.path(), length, Pieces(&bytes, size)).unwrap();
            let mut taken = Vec::new();
            (&file).read_to_end(&mut taken).unwrap();
            assert!(taken == bytes, "pieces of {size}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
    }

    #[test]
    fn what_is_no_bundle_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let failure = |bytes: &[u8], length| take(folder.path(), length, Pieces(bytes, 600)).unwrap_err();
        let page = failure(&b"<html>".repeat(1000), None);
        assert!(page.code == ErrorCode::BadRequest && page.message.contains("not a bundle"), "{}", page.message);
        let whole = bundle();
        assert!(failure(&whole[..whole.len() - 1], None).message.contains("cut off"));
        assert!(failure(&[&whole[..], b"more"].concat(), None).message.contains("cut off or goes on"));
        assert_eq!(failure(&whole, Some(MAX_BYTES + 1)).code, ErrorCode::Space);
        assert_eq!(failure(&whole, Some(u64::MAX)).code, ErrorCode::Space);
    }
}
