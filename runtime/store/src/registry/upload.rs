//! One blob brought into a repository (OCI distribution spec 1.1, "Pushing a blob in chunks").

use std::io::Read;
use std::thread;

use flate2::Compression;
use flate2::write::GzEncoder;
use keel_fetch::{Method, Response, resolve_location};

use super::client::{Ask, MAX_TRIES, Registry, wait};
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::model::Descriptor;

/// Bytes sent at a time; held in memory, so that a chunk can be sent again. Object storage behind registries wants 5 MiB.
const CHUNK_BYTES: usize = 5 << 20;
/// Bytes read before they are compressed.
const READ_BYTES: usize = 64 * 1024;
/// Longest answer that is read.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Whether the repository has a blob.
pub fn exists(registry: &Registry<'_>, digest: &Digest) -> Result<bool, Error> {
    let ask = Ask { method: Method::Head, max_bytes: MAX_ANSWER_BYTES, ..Ask::default() };
    match registry.retried(|| registry.send(&registry.url(&format!("blobs/{digest}")), &ask)) {
        Ok(_) => Ok(true),
        Err(Error::NotInRegistry { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Asks for a blob of another repository; whether it is here now. An upload that was begun instead is left to expire.
pub fn mount(registry: &Registry<'_>, digest: &Digest, from: &str) -> Result<bool, Error> {
    let url = registry.url(&format!("blobs/uploads/?mount={digest}&from={}", super::challenge::encode(from)));
    let ask = Ask { method: Method::Post, max_bytes: MAX_ANSWER_BYTES, ..Ask::default() };
    match registry.retried(|| registry.send(&url, &ask)) {
        Ok(response) => Ok(response.status == 201),
        // Without leave to read there the blob is sent.
        Err(Error::Denied { .. } | Error::NotInRegistry { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends a small blob, unless it is there.
pub fn small(registry: &Registry<'_>, bytes: &[u8]) -> Result<(), Error> {
    let digest = Digest::of(bytes);
    if exists(registry, &digest)? {
        return Ok(());
    }
    let mut upload = Upload::begin(registry)?;
    upload.chunk(bytes)?;
    upload.finish(&digest)
}

/// Compresses a layer's archive with gzip and sends it. `report` is told how many bytes of the archive have been taken,
/// and returns whether to go on. Equal archives give equal blobs.
pub fn layer(
    registry: &Registry<'_>,
    archive: &mut dyn Read,
    media_type: &str,
    report: &dyn Fn(u64) -> bool,
) -> Result<(Descriptor, Digest), Error> {
    let read_error = |source| Error::Read { what: "a layer on disk".into(), source };
    let mut upload = Upload::begin(registry)?;
    let mut gzip = GzEncoder::new(Vec::with_capacity(CHUNK_BYTES + READ_BYTES), Compression::default());
    let (mut archive_digest, mut blob_digest) = (Hasher::new(), Hasher::new());
    let mut buffer = vec![0; READ_BYTES];
    let mut taken = 0;
    loop {
        let count = archive.read(&mut buffer).map_err(read_error)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        archive_digest.update(bytes);
        std::io::Write::write_all(&mut gzip, bytes).map_err(read_error)?;
        taken += count as u64;
        if !report(taken) {
            return Err(Error::Cancelled("a push of which another layer failed".into()));
        }
        if gzip.get_ref().len() >= CHUNK_BYTES {
            blob_digest.update(gzip.get_ref());
            upload.chunk(gzip.get_ref())?;
            gzip.get_mut().clear();
        }
    }
    let last = gzip.finish().map_err(read_error)?;
    blob_digest.update(&last);
    upload.chunk(&last)?;
    let (digest, size) = (blob_digest.finish(), upload.sent);
    upload.finish(&digest)?;
    Ok((Descriptor::new(media_type, digest, size), archive_digest.finish()))
}

/// An upload under way.
struct Upload<'a> {
    registry: &'a Registry<'a>,
    /// Where the next request goes; changes with each answer.
    location: String,
    sent: u64,
}

impl<'a> Upload<'a> {
    fn begin(registry: &'a Registry<'a>) -> Result<Self, Error> {
        let url = registry.url("blobs/uploads/");
        let ask = Ask { method: Method::Post, max_bytes: MAX_ANSWER_BYTES, ..Ask::default() };
        let response = registry.retried(|| registry.send(&url, &ask))?;
        let mut upload = Self { registry, location: url, sent: 0 };
        upload.follow(&response)?;
        Ok(upload)
    }

    /// Sends the next bytes. After a broken connection the registry is asked how far it got, and gets the rest.
    fn chunk(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let start = self.sent;
        for tries in 1.. {
            let done = usize::try_from(self.sent - start).unwrap_or(usize::MAX);
            let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) else { break };
            let range = format!("{}-{}", self.sent, self.sent + rest.len() as u64 - 1);
            let headers = [("Content-Type", "application/octet-stream"), ("Content-Range", range.as_str())];
            let ask =
                Ask { method: Method::Patch, headers: &headers, body: rest, max_bytes: MAX_ANSWER_BYTES, range: None };
            match self.registry.send(&self.location, &ask) {
                Ok(response) => {
                    self.follow(&response)?;
                    self.sent += rest.len() as u64;
                }
                Err(Error::Fetch { source, .. }) if source.is_transient() && tries < MAX_TRIES => {
                    log::info!("pushing {}: {source}; trying again", self.registry.reference);
                    thread::sleep(wait(tries, source.retry_after()));
                    self.ask_how_far(start, bytes.len() as u64)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn ask_how_far(&mut self, start: u64, length: u64) -> Result<(), Error> {
        let ask = Ask { max_bytes: MAX_ANSWER_BYTES, ..Ask::default() };
        let response = self.registry.retried(|| self.registry.send(&self.location, &ask))?;
        let end = match response.header("range").and_then(|range| range.strip_prefix("0-")) {
            // "0-0" is what registries say of nothing as well as of one byte; no chunk of ours is one byte.
            None | Some("0") => 0,
            Some(last) => last.parse::<u64>().map_or(u64::MAX, |last| last.saturating_add(1)),
        };
        if !(start..=start + length).contains(&end) {
            let message = format!("an upload broke off, and it has {end} bytes of it where {start} or more were sent");
            return Err(self.registry.broken(message));
        }
        self.sent = end;
        self.follow(&response)
    }

    fn finish(self, digest: &Digest) -> Result<(), Error> {
        let separator = if self.location.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}digest={digest}", self.location);
        let headers = [("Content-Type", "application/octet-stream")];
        let ask = Ask { method: Method::Put, headers: &headers, max_bytes: MAX_ANSWER_BYTES, ..Ask::default() };
        // Not sent twice: after a first one that came through, the upload is gone.
        match self.registry.send(&url, &ask) {
            Ok(_) => Ok(()),
            Err(error) if exists(self.registry, digest).unwrap_or(false) => {
                log::info!("blob {digest} is there in spite of: {error}");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn follow(&mut self, response: &Response) -> Result<(), Error> {
        let Some(location) = response.header("location") else { return Ok(()) };
        self.location = resolve_location(&response.url, location).map_err(|source| self.registry.fetch(source))?;
        Ok(())
    }
}
