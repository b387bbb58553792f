//! Which bytes of a file are asked for (RFC 9110, section 14), and the heads of answers. No I/O.

use std::fmt::Write as _;
use std::ops::Range;

/// Most ranges of one request; who asks for more gets the whole file, as from a server without ranges.
pub const MAX_RANGES: usize = 64;

/// What is sent of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// These bytes, in this order.
    Ranges(Vec<Range<u64>>),
    /// Nothing: what is asked for lies beyond its end.
    Beyond,
}

/// What a `Range` asks of a file of this length. What can't be understood asks for the whole (section 14.2), and so
/// does more than the file has, in overlapping pieces.
pub fn part(value: Option<&str>, length: u64) -> Part {
    let Some(set) = value.and_then(|value| value.strip_prefix("bytes=")) else { return Part::Whole };
    let (mut ranges, mut count) = (Vec::new(), 0);
    for one in set.split(',').map(|one| one.trim_matches([' ', '\t'])).filter(|one| !one.is_empty()) {
        count += 1;
        match span(one, length) {
            Some(range) if count <= MAX_RANGES => ranges.extend(Some(range).filter(|range| !range.is_empty())),
            _ => return Part::Whole,
        }
    }
    let sum = ranges.iter().fold(0u64, |sum, range| sum.saturating_add(range.end - range.start));
    match (count, ranges.is_empty()) {
        (0, _) => Part::Whole,
        (_, true) => Part::Beyond,
        _ if sum > length => Part::Whole,
        _ => Part::Ranges(ranges),
    }
}

/// `0-9`, `5-`, `-3`; empty where it lies beyond the end; `None`: it means nothing.
fn span(text: &str, length: u64) -> Option<Range<u64>> {
    let number = |digits: &str| match digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() {
        // What doesn't fit into 64 bits is beyond any end.
        true => Some(digits.parse().unwrap_or(u64::MAX)),
        false => None,
    };
    match text.split_once('-')? {
        ("", suffix) => Some(length.saturating_sub(number(suffix)?)..length),
        (first, "") => Some(number(first)?.min(length)..length),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then(|| first.min(length)..last.saturating_add(1).min(length))
        }
    }
}

/// A piece of an answer's body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Text between the parts.
    Text(String),
    /// Bytes of the file.
    Bytes(Range<u64>),
}

/// An answer: its head, and what its body is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status line and fields, with the empty line.
    pub head: String,
    /// The body.
    pub body: Vec<Piece>,
}

/// An answer without a body.
pub fn empty(status: u16, phrase: &str, keep: bool) -> Answer {
    let mut head = format!("HTTP/1.1 {status} {phrase}\r\nContent-Length: 0\r\n");
    end(&mut head, keep);
    Answer { head, body: Vec::new() }
}

/// The answer that sends a part of a file of this length and SHA-256 (hexadecimal).
pub fn answer(part: &Part, length: u64, sha256: &str, keep: bool) -> Answer {
    let tag = format!("ETag: \"{sha256}\"\r\nAccept-Ranges: bytes\r\n");
    let kind = "application/octet-stream";
    let range_of = |range: &Range<u64>| format!("Content-Range: bytes {}-{}/{length}\r\n", range.start, range.end - 1);
    let (status, fields, body) = match part {
        Part::Beyond => ("416 Range Not Satisfiable", format!("Content-Range: bytes */{length}\r\n"), Vec::new()),
        Part::Whole => ("200 OK", format!("Content-Type: {kind}\r\n"), vec![Piece::Bytes(0..length)]),
        Part::Ranges(ranges) if ranges.len() == 1 => {
            let fields = format!("Content-Type: {kind}\r\n{}", range_of(&ranges[0]));
            ("206 Partial Content", fields, vec![Piece::Bytes(ranges[0].clone())])
        }
        Part::Ranges(ranges) => {
            let boundary = format!("keel-{}", sha256.get(..32).unwrap_or(sha256));
            let mut body = Vec::new();
            for range in ranges {
                let head = format!("\r\n--{boundary}\r\nContent-Type: {kind}\r\n{}\r\n", range_of(range));
                body.extend([Piece::Text(head), Piece::Bytes(range.clone())]);
            }
            body.push(Piece::Text(format!("\r\n--{boundary}--\r\n")));
            ("206 Partial Content", format!("Content-Type: multipart/byteranges; boundary={boundary}\r\n"), body)
        }
    };
    let bytes: u64 = body.iter().map(Piece::bytes).sum();
    let mut head = format!("HTTP/1.1 {status}\r\n{tag}{fields}Content-Length: {bytes}\r\n");
    end(&mut head, keep);
    Answer { head, body }
}

fn end(head: &mut String, keep: bool) {
    // Writing to a string doesn't fail.
    let _ = write!(head, "Connection: {}\r\n\r\n", if keep { "keep-alive" } else { "close" });
}

impl Piece {
    /// Its length.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Bytes(range) => range.end - range.start,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_understood_as_the_rfc_has_them() {
        for (value, want) in [
            ("bytes=0-9", "[0..10]"),
            ("bytes=90-", "[90..100]"),
            ("bytes=-5", "[95..100]"),
            ("bytes=-500", "[0..100]"),
            ("bytes=95-18446744073709551615", "[95..100]"),
            ("bytes=95-99999999999999999999999", "[95..100]"),
            ("bytes=50-59, 0-9,,200-300", "[50..60, 0..10]"),
        ] {
            assert_eq!(format!("{:?}", part(Some(value), 100)), format!("Ranges({want})"), "{value}");
        }
        for whole in ["", "bytes", "bytes=", "bytes=,", "bytes=a-b", "bytes=9-5", "bytes=+1-2", "bytes=-", "lines=0-9"]
        {
            assert_eq!(part(Some(whole), 100), Part::Whole, "{whole}");
        }
        assert_eq!(part(None, 100), Part::Whole);
        for beyond in ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-,200-300"] {
            assert_eq!(part(Some(beyond), 100), Part::Beyond, "{beyond}");
        }
    }

    #[test]
    fn nobody_gets_more_than_the_file_by_asking_for_it_in_pieces() {
        assert_eq!(part(Some("bytes=0-60,40-99"), 100), Part::Whole);
        let many = |count: usize| format!("bytes={}", vec!["1-1"; count].join(","));
        assert_eq!(part(Some(&many(MAX_RANGES + 1)), 100), Part::Whole);
        assert!(matches!(part(Some(&many(MAX_RANGES)), 100), Part::Ranges(ranges) if ranges.len() == MAX_RANGES));
    }

    #[test]
    fn lengths_are_those_of_what_is_sent() {
        let sha256 = "ab".repeat(32);
        for value in [None, Some("bytes=3-4"), Some("bytes=0-1,5-9,99-"), Some("bytes=100-")] {
            let answer = answer(&part(value, 100), 100, &sha256, true);
            let bytes: u64 = answer.body.iter().map(Piece::bytes).sum();
            assert!(answer.head.contains(&format!("\r\nContent-Length: {bytes}\r\n")), "{}", answer.head);
            assert!(answer.head.ends_with("\r\n\r\n") && answer.head.contains(&format!("ETag: \"{sha256}\"")));
        }
        assert!(empty(404, "Not Found", false).head.contains("Connection: close\r\n\r\n"));
    }
}
