//! Requests to the API, and its failures as ours.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use keel_spec::api::{ApiError, ErrorCode};
use serde::de::DeserializeOwned;

use crate::error::{Failure, Result};
use crate::http::{self, Body, Head};
use crate::target::Target;

/// Longest wait for an answer that doesn't depend on a network.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read whole.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// Longest line of a stream of JSON documents.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// The way to one API.
#[derive(Clone, Debug)]
pub struct Client {
    target: Target,
}

impl Client {
    /// To the API at `target`.
    pub fn new(target: Target) -> Self {
        Self { target }
    }

    /// A request whose answer comes soon and is read whole.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Result<String> {
        self.read_all(self.send(method, path, body, Some(ANSWER_TIMEOUT))?)
    }

    /// Like [`Client::request`], for what may take minutes.
    pub fn patient_request(&self, method: &str, path: &str, body: &[u8]) -> Result<String> {
        self.read_all(self.send(method, path, body, None)?)
    }

    /// `GET` of a JSON document.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        parse(&self.request("GET", path, b"")?)
    }

    /// A request whose answer comes bit by bit, for as long as it likes.
    pub fn stream(&self, method: &str, path: &str, body: &[u8]) -> Result<Body> {
        self.send(method, path, body, None)
    }

    /// A request that is answered with a JSON document a line.
    pub fn lines(&self, method: &str, path: &str, body: &[u8], each: impl FnMut(&str) -> Result<()>) -> Result<()> {
        self.lines_of(self.stream(method, path, body)?, each)
    }

    /// The JSON documents of an answer, one a line.
    pub fn lines_of(&self, answer: Body, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
        let mut lines = BufReader::new(answer);
        loop {
            let mut line = String::new();
            (&mut lines).take(MAX_LINE_BYTES).read_line(&mut line).map_err(|error| self.lost(&error))?;
            if line.is_empty() {
                return Ok(());
            }
            if !line.trim().is_empty() {
                each(line.trim())?;
            }
        }
    }

    /// A `POST` of `length` bytes, which go out as they are read. `sent` is told how many have gone.
    pub fn upload(&self, path: &str, length: u64, from: &mut dyn Read, sent: &mut dyn FnMut(u64)) -> Result<Body> {
        let stream = self.target.connect(None)?;
        let (head, body) = http::upload(stream, path, length, from, sent).map_err(|error| self.lost(&error))?;
        self.judge("POST", path, head, body)
    }

    fn read_all(&self, body: Body) -> Result<String> {
        let mut bytes = Vec::new();
        body.take(MAX_ANSWER_BYTES).read_to_end(&mut bytes).map_err(|error| self.lost(&error))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn send(&self, method: &str, path: &str, body: &[u8], timeout: Option<Duration>) -> Result<Body> {
        let stream = self.target.connect(timeout)?;
        let (head, body) = http::exchange(stream, method, path, body).map_err(|error| self.lost(&error))?;
        self.judge(method, path, head, body)
    }

    /// The body of an answer that is none of a failure.
    fn judge(&self, method: &str, path: &str, head: Head, body: Body) -> Result<Body> {
        if head.status < 400 {
            return Ok(body);
        }
        let text = self.read_all(body)?;
        Err(serde_json::from_str::<ApiError>(&text).map_or_else(
            |_| {
                let message = format!("{method} {path}: the API answered {}: {}", head.status, text.trim());
                Failure::new(code_of(head.status), message)
            },
            Failure::from,
        ))
    }

    fn lost(&self, error: &std::io::Error) -> Failure {
        let hint = match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => "it took too long to answer".to_owned(),
            _ => error.to_string(),
        };
        Failure::unavailable(format!("lost the connection to the API: {hint}; is its service up?"))
    }
}

/// Reads a JSON document of the API.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        let message = format!("the API's answer can't be read: {error}; do keelctl and the host fit each other?");
        Failure::new(ErrorCode::Internal, message)
    })
}

fn code_of(status: u16) -> ErrorCode {
    match status {
        400..=403 | 405 => ErrorCode::BadRequest,
        404 => ErrorCode::NotFound,
        409 => ErrorCode::Conflict,
        503 => ErrorCode::Unavailable,
        _ => ErrorCode::Internal,
    }
}

/// Percent-encodes what goes into a path or a query (RFC 3986, section 2.3).
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            byte => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(encode("a/b:1 ü"), "a%2Fb%3A1%20%C3%BC");
    }
}
