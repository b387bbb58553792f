//! One record of a container's log: sixteen bytes of header, then the bytes as the container wrote them.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | [`MAGIC`], so that zeroes and torn writes are told from records |
//! | 1 | 1: stdout, 2: stderr; 128 is added where the data doesn't end a line |
//! | 2 | zero |
//! | 4 | length of the data, little endian, 1 to [`MAX_DATA_BYTES`] |
//! | 8 | when it was read, nanoseconds since the Unix epoch, little endian |
//!
//! A record holds at most one line, so that a count of lines is a count of records.

use crate::output::Stream;

/// First byte of a record.
const MAGIC: u8 = 0xA7;
/// Bytes before the data.
pub const HEADER_BYTES: usize = 16;
/// Longest data of one record; longer lines become several.
pub const MAX_DATA_BYTES: usize = 16 * 1024;
const PARTIAL: u8 = 128;

/// A record, borrowed from the bytes it was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Where it was written to.
    pub stream: Stream,
    /// Nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// Whether the data ends its line.
    pub ends_line: bool,
    /// What was written.
    pub data: &'a [u8],
}

impl Record<'_> {
    /// Bytes that it takes in the file.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.data.len()
    }
}

/// Appends `data` as records, a line each.
pub fn encode(into: &mut Vec<u8>, stream: Stream, unix_ns: u64, data: &[u8]) {
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        for part in line.chunks(MAX_DATA_BYTES) {
            let partial = if part.last() == Some(&b'\n') { 0 } else { PARTIAL };
            let stream = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            into.extend_from_slice(&[MAGIC, stream | partial, 0, 0]);
            into.extend_from_slice(&(part.len() as u32).to_le_bytes());
            into.extend_from_slice(&unix_ns.to_le_bytes());
            into.extend_from_slice(part);
        }
    }
}

/// The record at the start of `bytes`; `None`: none is there, or not all of it.
pub fn decode(bytes: &[u8]) -> Option<Record<'_>> {
    let (header, rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    let [MAGIC, kind, 0, 0, l0, l1, l2, l3, time @ ..] = header else { return None };
    let stream = match kind & !PARTIAL {
        1 => Stream::Stdout,
        2 => Stream::Stderr,
        _ => return None,
    };
    let length = u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize;
    if length == 0 || length > MAX_DATA_BYTES {
        return None;
    }
    Some(Record {
        stream,
        unix_ns: u64::from_le_bytes(*time),
        ends_line: kind & PARTIAL == 0,
        data: rest.get(..length)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_text_survive() {
        let mut bytes = Vec::new();
        encode(&mut bytes, Stream::Stderr, 7, b"\xff\xfe\0\n\xc3");
        let first = decode(&bytes).unwrap();
        assert_eq!((first.data, first.ends_line, first.stream), (&b"\xff\xfe\0\n"[..], true, Stream::Stderr));
        let second = decode(&bytes[first.size_bytes()..]).unwrap();
        assert_eq!((second.data, second.ends_line, second.unix_ns), (&b"\xc3"[..], false, 7));
    }

    #[test]
    fn zeroes_and_torn_records_are_none() {
        let mut bytes = Vec::new();
        encode(&mut bytes, Stream::Stdout, 7, b"hello\n");
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None);
        }
        assert_eq!(decode(&[0; 64]), None);
    }

    #[test]
    fn a_long_line_becomes_several_records() {
        let mut bytes = Vec::new();
        encode(&mut bytes, Stream::Stdout, 0, &vec![b'x'; MAX_DATA_BYTES + 1]);
        assert_eq!(bytes.len(), MAX_DATA_BYTES + 1 + 2 * HEADER_BYTES);
    }
}
