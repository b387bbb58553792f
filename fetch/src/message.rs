//! Requests and responses.

use std::io::{self, Read};
use std::ops::Range;
use std::time::Duration;

use ureq::http::HeaderMap;

use crate::error::Error;
use crate::multipart::{self, Multipart};
use crate::range;

/// Bytes of a response's body that [`Response::success`] puts into an error.
pub const MAX_EXCERPT_BYTES: u64 = 512;

/// Methods this client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    #[default]
    Get,
    /// `HEAD`: the body is always empty; [`Response::length`] still tells what it would have been.
    Head,
    /// `POST`; its redirects aren't followed but returned.
    Post,
    /// `PUT`; its redirects aren't followed but returned.
    Put,
    /// `PATCH` (RFC 5789); its redirects aren't followed but returned.
    Patch,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// `http://` or `https://` address, without credentials in it.
    pub url: &'a str,
    /// Further headers. `Authorization` isn't sent on to another host by a redirect.
    pub headers: &'a [(&'a str, &'a str)],
    /// Bytes asked for; the end is exclusive. The answer is checked: a 206 for another range is an
    /// error, a 200 (the whole) is returned as it is.
    pub range: Option<Range<u64>>,
    /// Several ranges asked for at once, in the place of `range`; see [`Response::ranges`] for what may come back.
    pub ranges: &'a [Range<u64>],
    /// Most bytes of the response's body, [`Error::TooLong`] beyond.
    pub max_bytes: u64,
    /// Body to send, for `POST`, `PUT` and `PATCH`.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// A request without headers, range or body.
    pub fn new(url: &'a str, max_bytes: u64) -> Self {
        Self { url, headers: &[], range: None, ranges: &[], max_bytes, body: &[] }
    }

    /// The same request with these headers.
    pub fn headers(self, headers: &'a [(&'a str, &'a str)]) -> Self {
        Self { headers, ..self }
    }

    /// The same request for these bytes only; the end is exclusive.
    pub fn range(self, range: Range<u64>) -> Self {
        Self { range: Some(range), ..self }
    }

    /// The same request with a body.
    pub fn body(self, body: &'a [u8]) -> Self {
        Self { body, ..self }
    }
}

/// The head of a response and the stream of its body. Any status comes here, see [`Response::success`].
#[derive(Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Length of the body in bytes, where the server told it.
    pub length: Option<u64>,
    /// Address that answered in the end, after redirects.
    pub url: String,
    /// The body, bounded by the request's `max_bytes`.
    pub body: Body,
}

impl Response {
    /// Value of a header, if it is there and visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// This response if its status is 2xx, otherwise [`Error::Status`] with the beginning of its body.
    pub fn success(mut self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        let retry_after =
            self.header("retry-after").and_then(|value| value.trim().parse().ok()).map(Duration::from_secs);
        let mut start = Vec::new();
        // The status is the error to report; a body that fails as well adds nothing.
        let _ = (&mut self.body).take(MAX_EXCERPT_BYTES).read_to_end(&mut start);
        let body = String::from_utf8_lossy(&start)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
            .trim()
            .to_owned();
        Err(Error::Status { url: self.body.url.clone(), status: self.status, body, retry_after })
    }

    /// The bytes of all ranges asked for, one after the other, if the server sent just these (RFC 9110, section 15.3.7):
    /// one range as it is, several as `multipart/byteranges` in the order asked for. `None`: it sent something else.
    pub fn ranges(self, asked: &[Range<u64>]) -> Option<Box<dyn Read>> {
        if self.status != 206 {
            return None;
        }
        let content_type = self.header("content-type").unwrap_or_default();
        match multipart::boundary(content_type) {
            Some(boundary) => Some(Box::new(Multipart::new(self.body, &boundary, asked))),
            None => {
                let told = self.header("content-range").unwrap_or_default();
                let [one] = asked else { return None };
                range::check(one, told, self.length).is_ok().then(|| Box::new(self.body) as Box<dyn Read>)
            }
        }
    }

    /// The whole body, in memory.
    pub fn bytes(mut self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        match self.body.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(self.body.unwrap_io(error)),
        }
    }
}

/// Stream of a response's body. Its errors are [`Error`]s inside [`io::Error`]s, see [`Error::from_io`].
pub struct Body {
    pub(crate) url: String,
    pub(crate) inner: ureq::BodyReader<'static>,
    pub(crate) max_bytes: u64,
    pub(crate) read_bytes: u64,
    pub(crate) idle_timeout: Duration,
}

impl Body {
    fn unwrap_io(&self, error: io::Error) -> Error {
        let url = self.url.clone();
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(source) => Error::Io { url, source },
        }
    }

    fn explain(&self, error: io::Error) -> Error {
        let error = ureq::Error::from(error);
        if matches!(&error, ureq::Error::Io(e) if e.kind() == io::ErrorKind::UnexpectedEof) {
            return Error::Cut { url: self.url.clone(), got: self.read_bytes };
        }
        crate::connect::explain(&self.url, error, self.idle_timeout, self.idle_timeout)
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer).map_err(|error| io::Error::from(self.explain(error)))?;
        self.read_bytes = self.read_bytes.saturating_add(count as u64);
        if self.read_bytes > self.max_bytes {
            return Err(Error::TooLong { url: self.url.clone(), max_bytes: self.max_bytes }.into());
        }
        Ok(count)
    }
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("url", &self.url).field("read_bytes", &self.read_bytes).finish_non_exhaustive()
    }
}
