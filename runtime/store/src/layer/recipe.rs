//! How the archive of a layer was put together: its headers, padding and small files as they were, and which object
//! each other content is. It is all that is kept of a layer beside the objects.
//!
//! An image's ID covers the digest of each layer's archive, so saving or pushing an image needs the same archive again,
//! byte for byte ([`super::assemble`]); and the tree of an image is made of the entries of its layers
//! ([`super::replay`]).
//!
//! A recipe is a zstd stream of records, integers little-endian: `R length bytes`, `O digest segments`, and `E` at its
//! end.

use std::io::{self, Read, Write};

use crate::digest::ObjectId;

/// Raw bytes gathered before they become a record.
const RAW_BYTES: usize = 64 * 1024;
/// zstd level; headers are so alike that more effort gains little.
const LEVEL: i32 = 1;
/// Window of the compressor, log 2: 128 KiB keep it small in memory.
const WINDOW_LOG: u32 = 17;
/// Most parts with data that a sparse file may have.
pub const MAX_SEGMENTS: usize = 64 * 1024;

/// A part of a file: offset and length in bytes.
pub type Segment = (u64, u64);

/// One step of putting an archive together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// These bytes.
    Raw(Vec<u8>),
    /// These parts of an object.
    Object(ObjectId, Vec<Segment>),
}

/// Writes a recipe.
pub struct Writer<W: Write> {
    out: zstd::Encoder<'static, W>,
    raw: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// A recipe that is written to `out`.
    pub fn new(out: W) -> io::Result<Self> {
        let mut out = zstd::Encoder::new(out, LEVEL)?;
        out.window_log(WINDOW_LOG)?;
        Ok(Self { out, raw: Vec::with_capacity(RAW_BYTES) })
    }

    /// Bytes as they are.
    pub fn raw(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = (RAW_BYTES - self.raw.len()).min(bytes.len());
            let (now, later) = bytes.split_at(room);
            self.raw.extend_from_slice(now);
            bytes = later;
            if self.raw.len() == RAW_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Parts of an object.
    pub fn object(&mut self, object: &ObjectId, segments: &[Segment]) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(b"O")?;
        self.out.write_all(&object.bytes())?;
        self.number(segments.len())?;
        for (offset, length) in segments {
            self.out.write_all(&offset.to_le_bytes())?;
            self.out.write_all(&length.to_le_bytes())?;
        }
        Ok(())
    }

    /// Ends the recipe.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        self.out.write_all(b"E")?;
        self.out.finish()
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.raw.is_empty() {
            return Ok(());
        }
        let raw = std::mem::take(&mut self.raw);
        self.out.write_all(b"R")?;
        self.bytes(&raw)?;
        self.raw = raw;
        self.raw.clear();
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.number(bytes.len())?;
        self.out.write_all(bytes)
    }

    fn number(&mut self, number: usize) -> io::Result<()> {
        let number = u32::try_from(number).map_err(|_| io::Error::other("a record of a recipe is too long"))?;
        self.out.write_all(&number.to_le_bytes())
    }
}

/// Reads a recipe.
pub struct Reader<R: Read> {
    input: zstd::Decoder<'static, io::BufReader<R>>,
}

impl<R: Read> Reader<R> {
    /// The recipe in `input`.
    pub fn new(input: R) -> io::Result<Self> {
        let mut input = zstd::Decoder::new(input)?;
        input.window_log_max(WINDOW_LOG)?;
        Ok(Self { input })
    }

    /// The next record; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Record>> {
        match u8::from_le_bytes(self.array()?) {
            b'E' => Ok(None),
            b'R' => Ok(Some(Record::Raw(self.bytes(RAW_BYTES)?))),
            b'O' => Ok(Some(Record::Object(ObjectId::from_bytes(self.array()?), self.segments()?))),
            _ => Err(damaged()),
        }
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn segments(&mut self) -> io::Result<Vec<Segment>> {
        let count = self.length(MAX_SEGMENTS)?;
        (0..count).map(|_| Ok((u64::from_le_bytes(self.array()?), u64::from_le_bytes(self.array()?)))).collect()
    }

    fn length(&mut self, most: usize) -> io::Result<usize> {
        let length = usize::try_from(u32::from_le_bytes(self.array()?)).map_err(|_| damaged())?;
        if length <= most { Ok(length) } else { Err(damaged()) }
    }

    fn bytes(&mut self, most: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.length(most)?];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the recipe of the layer's archive is damaged")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_as_they_were() {
        let mut writer = Writer::new(Vec::new()).unwrap();
        let long = vec![7; RAW_BYTES + 5];
        let object = ObjectId::of(b"x");
        writer.raw(&long).unwrap();
        writer.object(&object, &[(0, 3), (9, u64::MAX)]).unwrap();
        writer.raw(b"end").unwrap();
        let bytes = writer.finish().unwrap();
        let mut reader = Reader::new(&bytes[..]).unwrap();
        let mut records = Vec::new();
        while let Some(record) = reader.next().unwrap() {
            records.push(record);
        }
        let expected = [
            Record::Raw(long[..RAW_BYTES].to_vec()),
            Record::Raw(vec![7; 5]),
            Record::Object(object, vec![(0, 3), (9, u64::MAX)]),
            Record::Raw(b"end".to_vec()),
        ];
        assert_eq!(records, expected);
    }

    #[test]
    fn damaged_recipes_are_errors() {
        let whole = |records: &[u8]| zstd::encode_all(records, 1).unwrap();
        for bytes in [whole(b""), whole(b"X"), whole(b"R\xff\xff\xff\xff"), whole(b"R\x05\0\0\0ab"), b"junk".to_vec()] {
            let read = Reader::new(&bytes[..]).and_then(|mut reader| reader.next());
            assert!(read.is_err(), "{read:?}");
        }
    }
}
