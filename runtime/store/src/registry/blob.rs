//! A blob's stream that goes on after a broken connection: what has been unpacked needn't come twice.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use keel_fetch::Body;

use super::client::{MAX_TRIES, Registry, wait};
use crate::digest::Digest;
use crate::error::Error;
use crate::model::Descriptor;

/// Broken connections survived in one blob, however far each got.
const MAX_BREAKS: u32 = 20;

/// The bytes of a blob.
pub struct BlobStream<'a> {
    registry: &'a Registry<'a>,
    digest: Digest,
    size: u64,
    position: u64,
    body: Option<Body>,
    breaks: u32,
    /// Breaks since the last byte.
    tries: u32,
    /// Told the position every now and then, and of retries (with the wait in seconds).
    report: &'a dyn Fn(u64, Option<u64>) -> bool,
}

impl<'a> BlobStream<'a> {
    /// Nothing is sent before the first read. `report` returns whether to go on.
    pub fn new(
        registry: &'a Registry<'a>,
        blob: &Descriptor,
        report: &'a dyn Fn(u64, Option<u64>) -> bool,
    ) -> BlobStream<'a> {
        Self { registry, digest: blob.digest, size: blob.size, position: 0, body: None, breaks: 0, tries: 0, report }
    }

    fn open(&self) -> Result<Body, Error> {
        let range = (self.position > 0).then_some(self.position..self.size);
        let is_range = range.is_some();
        let response = self.registry.blob(&self.digest, range, self.size)?;
        if response.length.is_some_and(|length| response.status == 200 && length != self.size) {
            let length = response.length.unwrap_or_default();
            return Err(self
                .registry
                .broken(format!("blob {} has {length} bytes where the manifest says {}", self.digest, self.size)));
        }
        let mut body = response.body;
        if is_range && response.status == 200 {
            // The server doesn't do ranges: pass over what we have.
            let skipped = io::copy(&mut body.by_ref().take(self.position), &mut io::sink());
            skipped.map_err(|source| Error::Read { what: format!("blob {}", self.digest), source })?;
        }
        Ok(body)
    }

    fn step(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut body = match self.body.take() {
            Some(body) => body,
            None => self.open().map_err(io::Error::other)?,
        };
        let count = body.read(buffer)?;
        self.body = Some(body);
        Ok(count)
    }
}

impl Read for BlobStream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position >= self.size || buffer.is_empty() {
            return Ok(0);
        }
        loop {
            match self.step(buffer) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob ended early")),
                Ok(count) => {
                    self.position += count as u64;
                    self.tries = 0;
                    if !(self.report)(self.position, None) {
                        return Err(io::Error::other("another layer failed"));
                    }
                    return Ok(count);
                }
                Err(error) => {
                    self.tries += 1;
                    self.breaks += 1;
                    if !fetch_error(&error).is_some_and(keel_fetch::Error::is_transient)
                        || self.tries >= MAX_TRIES
                        || self.breaks >= MAX_BREAKS
                    {
                        return Err(error);
                    }
                    let wait = wait(self.tries, retry_after(&error));
                    log::info!("blob {} at byte {}: {error}; trying again", self.digest, self.position);
                    if !(self.report)(self.position, Some(wait.as_secs())) {
                        return Err(error);
                    }
                    thread::sleep(wait);
                }
            }
        }
    }
}

fn retry_after(error: &io::Error) -> Option<Duration> {
    fetch_error(error).and_then(keel_fetch::Error::retry_after)
}

/// The network's error inside, wherever it sits.
fn fetch_error(error: &io::Error) -> Option<&keel_fetch::Error> {
    if let Some(fetch) = keel_fetch::Error::from_io(error) {
        return Some(fetch);
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::Fetch { source, .. }) => Some(source),
        Some(Error::Read { source, .. }) => fetch_error(source),
        _ => None,
    }
}
