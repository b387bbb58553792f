//! Where a repository's files come from.
//!
//! Any static file server will do. Nothing that comes from here is trusted: sizes are capped by the caller, content is
//! checked by the caller.

use std::io::{self, Read};
use std::ops::Range;
use std::time::Duration;

use keel_fetch::{Client, Error, LeastRate, Options, Proxies, Request};

/// Least that a server has to send while it is waited for, about 1 KiB/s. Nobody waits for it while the bandwidth limit
/// holds back or the disk is written to. One that sends less has failed, as if the connection had broken.
pub const LEAST_RATE: LeastRate = LeastRate { bytes: 64 << 10, within: Duration::from_secs(60) };
/// Longest wait for the next bytes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Files by their path under the repository's base address.
pub trait Source: Send + Sync {
    /// For messages.
    fn name(&self) -> String;

    /// Opens a file, or ranges of it (ends exclusive, ascending); `None`: there is no such file. The stream ends with an
    /// error beyond `max_bytes`.
    fn open(&self, path: &str, ranges: &[Range<u64>], max_bytes: u64) -> io::Result<Option<Opened>>;

    /// A whole small file.
    fn small(&self, path: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(opened) = self.open(path, &[], max_bytes)? else { return Ok(None) };
        let mut bytes = Vec::new();
        opened.body.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > max_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {max_bytes} bytes")));
        }
        Ok(Some(bytes))
    }
}

/// An opened file.
pub struct Opened {
    /// Whether the body is just the ranges asked for, one after the other; otherwise it is the whole file, or of no use.
    pub ranged: bool,
    /// Its content.
    pub body: Box<dyn Read>,
}

/// A repository on an HTTP server.
pub struct Http {
    client: Client,
    base: String,
}

impl Http {
    /// At this base address, with further certificate authorities.
    pub fn new(base: &str, extra_ca_pem: Option<String>) -> Result<Self, Error> {
        Self::through(Proxies::default(), base, extra_ca_pem)
    }

    /// The same through proxies, if there are any.
    pub fn through(proxies: Proxies, base: &str, extra_ca_pem: Option<String>) -> Result<Self, Error> {
        let (idle_timeout, least_rate) = (IDLE_TIMEOUT, Some(LEAST_RATE));
        Self::with(Options { extra_ca_pem, proxies, idle_timeout, least_rate, ..Options::default() }, base)
    }

    /// The same by a client of one's own.
    pub fn with(options: Options, base: &str) -> Result<Self, Error> {
        Ok(Self { client: Client::new(options)?, base: base.trim_end_matches('/').to_owned() })
    }
}

impl Source for Http {
    fn name(&self) -> String {
        self.base.clone()
    }

    fn open(&self, path: &str, ranges: &[Range<u64>], max_bytes: u64) -> io::Result<Option<Opened>> {
        let url = format!("{}/{path}", self.base);
        let mut request = Request::new(&url, max_bytes);
        // One range is checked by the client; several are as they come.
        match ranges {
            [one] => request.range = Some(one.clone()),
            _ => request.ranges = ranges,
        }
        let response = self.client.get(&request)?;
        // S3 without the right to list answers 403 for what isn't there, as the specification's clients expect.
        if matches!(response.status, 403 | 404) {
            return Ok(None);
        }
        let response = response.success()?;
        if response.status != 206 {
            return Ok(Some(Opened { ranged: false, body: Box::new(response.body) }));
        }
        let body = response.ranges(ranges);
        Ok(Some(Opened { ranged: body.is_some(), body: body.unwrap_or_else(|| Box::new(io::empty())) }))
    }
}
