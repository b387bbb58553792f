//! Several ranges in one answer: `multipart/byteranges`, RFC 9110 section 14.6.
//!
//! A server may leave ranges out, join them or send them in another order; then reading ends with an error, and whoever
//! asked asks for them one by one. Everything but the ranges' own bytes is bounded.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read};
use std::ops::Range;

use crate::range;

/// Longest line between two parts, in bytes.
const MAX_LINE_BYTES: u64 = 1024;
/// Most lines between two parts.
const MAX_LINES: usize = 32;
/// Longest boundary (RFC 2046, section 5.1.1).
const MAX_BOUNDARY: usize = 70;

/// The boundary that a `Content-Type` names, if it is that of several ranges.
pub fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/byteranges") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("boundary").then(|| value.trim().trim_matches('"').to_owned())
    })?;
    (1..=MAX_BOUNDARY).contains(&value.len()).then_some(value)
}

/// The bytes of all ranges, one after the other, without what is between them.
pub struct Multipart<R> {
    inner: BufReader<R>,
    delimiter: String,
    next: VecDeque<Range<u64>>,
    /// Bytes of the current part that are still to come.
    left: u64,
}

impl<R: Read> Multipart<R> {
    /// Over a body in which these ranges have to come, in this order.
    pub fn new(body: R, boundary: &str, asked: &[Range<u64>]) -> Self {
        let next = asked.iter().cloned().collect();
        Self { inner: BufReader::new(body), delimiter: format!("--{boundary}"), next, left: 0 }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        (&mut self.inner).take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(wrong("a part of the answer is cut off or has a line that is too long"));
        }
        Ok(String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned())
    }

    /// Reads up to the first byte of a part, which has to be this range.
    fn begin(&mut self, asked: Range<u64>) -> io::Result<()> {
        let mut inside = false;
        let mut told = None;
        for _ in 0..MAX_LINES {
            let line = self.line()?;
            match inside {
                false => inside = line == self.delimiter,
                true if line.is_empty() => {
                    let told: String = told.ok_or_else(|| wrong("a part of the answer has no Content-Range"))?;
                    range::check(&asked, &told, None).map_err(|why| wrong(&why))?;
                    self.left = asked.end - asked.start;
                    return Ok(());
                }
                true => {
                    if let Some((name, value)) = line.split_once(':')
                        && name.eq_ignore_ascii_case("content-range")
                    {
                        told = Some(value.trim().to_owned());
                    }
                }
            }
        }
        Err(wrong("there is no next part in the answer"))
    }
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl<R: Read> Read for Multipart<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.left == 0 {
            let Some(asked) = self.next.pop_front() else { return Ok(0) };
            self.begin(asked)?;
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "\r\n--x\r\nContent-Type: a/b\r\nContent-Range: bytes 0-2/99\r\n\r\nabc\r\n--x\r\n\
                        content-range: bytes 5-6/99\r\n\r\nfg\r\n--x--\r\n";

    fn read(body: &str, asked: &[Range<u64>]) -> io::Result<String> {
        let mut text = String::new();
        Multipart::new(body.as_bytes(), "x", asked).read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn ranges_come_one_after_the_other_without_what_is_between() {
        assert_eq!(read(BODY, &[0..3, 5..7]).unwrap(), "abcfg");
    }

    #[test]
    fn other_ranges_than_those_asked_for_are_refused() {
        for asked in [&[0..3, 5..8][..], &[5..7, 0..3], &[0..3, 5..7, 8..9], &[0..2, 5..7]] {
            assert!(read(BODY, asked).is_err(), "{asked:?}");
        }
        for end in 0..BODY.len() - 10 {
            assert!(read(&BODY[..end], &[0..3, 5..7]).is_err(), "{end}");
        }
        let endless = format!("--x\r\n{}", "a: b\r\n".repeat(100_000));
        assert!(read(&endless, &[0..3, 5..7]).is_err());
    }

    #[test]
    fn boundaries_are_found_with_and_without_quotes() {
        assert_eq!(boundary("multipart/byteranges; boundary=abc").as_deref(), Some("abc"));
        assert_eq!(boundary("Multipart/ByteRanges; a=b; boundary=\"a b\"").as_deref(), Some("a b"));
        for other in
            ["text/html", "multipart/byteranges", "multipart/form-data; boundary=x", "multipart/byteranges; boundary="]
        {
            assert_eq!(boundary(other), None, "{other}");
        }
    }
}
