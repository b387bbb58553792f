//! gzip, zstd, xz, bzip2 or none, told by the first bytes: media types and file names lie.

use std::io::{self, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;

use super::xz::Xz;

/// Buffer before the decoder.
const BUFFER_BYTES: usize = 64 * 1024;
/// Largest zstd window, log 2: 64 MiB. Level 19 needs 8 MiB.
const MAX_ZSTD_WINDOW_LOG: u32 = 26;

/// A stream, decompressed.
pub enum Decoder<'a> {
    /// As it is.
    Plain(BufReader<Box<dyn Read + 'a>>),
    /// RFC 1952, several members allowed.
    Gzip(Box<MultiGzDecoder<BufReader<Box<dyn Read + 'a>>>>),
    /// RFC 8878, several frames allowed.
    Zstd(Box<zstd::Decoder<'static, BufReader<Box<dyn Read + 'a>>>>),
    /// xz-file-format 1.2.1, several streams allowed.
    Xz(Xz<BufReader<Box<dyn Read + 'a>>>),
    /// Several streams allowed.
    Bzip2(Box<MultiBzDecoder<BufReader<Box<dyn Read + 'a>>>>),
}

impl<'a> Decoder<'a> {
    /// Looks at the first bytes and chooses.
    pub fn new(mut inner: impl Read + 'a) -> io::Result<Self> {
        let mut start = Vec::new();
        inner.by_ref().take(6).read_to_end(&mut start)?;
        let magic = start.clone();
        let inner = Box::new(io::Cursor::new(start).chain(inner)) as Box<dyn Read + 'a>;
        let inner = BufReader::with_capacity(BUFFER_BYTES, inner);
        Ok(if magic.starts_with(&[0x1f, 0x8b]) {
            Self::Gzip(Box::new(MultiGzDecoder::new(inner)))
        } else if magic == *b"\xfd7zXZ\0" {
            Self::Xz(Xz::new(inner))
        } else if matches!(
            magic[..],
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41] | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72]
        ) {
            Self::Bzip2(Box::new(MultiBzDecoder::new(inner)))
        } else if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let mut decoder = zstd::Decoder::with_buffer(inner)?;
            decoder.window_log_max(MAX_ZSTD_WINDOW_LOG)?;
            Self::Zstd(Box::new(decoder))
        } else {
            Self::Plain(inner)
        })
    }

    /// The compressed stream, for what the decoder left of it.
    pub fn rest(&mut self) -> &mut dyn Read {
        match self {
            Self::Plain(inner) => inner,
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Zstd(decoder) => decoder.get_mut(),
            Self::Xz(decoder) => decoder.get_mut(),
            Self::Bzip2(decoder) => decoder.get_mut(),
        }
    }
}

impl Read for Decoder<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(inner) => inner.read(buffer),
            Self::Gzip(decoder) => decoder.read(buffer),
            Self::Zstd(decoder) => decoder.read(buffer),
            Self::Xz(decoder) => decoder.read(buffer),
            Self::Bzip2(decoder) => decoder.read(buffer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bzip2_is_told_by_its_first_bytes_and_read() {
        // `printf 'a small text\n' | bzip2`
        #[rustfmt::skip]
        let small = [
            0x42, 0x5a, 0x68, 0x39, 0x31, 0x41, 0x59, 0x26, 0x53, 0x59, 0x06, 0xd1, 0x04, 0x58, 0x00, 0x00, 0x01, 0xd1,
            0x80, 0x00, 0x10, 0x40, 0x00, 0x22, 0x06, 0x0c, 0x40, 0x20, 0x00, 0x22, 0x06, 0x4c, 0x42, 0x0c, 0x98, 0x86,
            0x38, 0x22, 0x0b, 0x53, 0x27, 0x8b, 0xb9, 0x22, 0x9c, 0x28, 0x48, 0x03, 0x68, 0x82, 0x2c, 0x00u8,
        ];
        let read = |bytes: &[u8]| {
            let mut text = String::new();
            Decoder::new(io::Cursor::new(bytes.to_vec())).unwrap().read_to_string(&mut text).map(|_| text)
        };
        assert_eq!(read(&small).unwrap(), "a small text\n");
        assert!(read(&small[..40]).is_err());
        for plain in ["", "B", "BZh9 is how it begins", "\u{1f}"] {
            assert_eq!(read(plain.as_bytes()).unwrap(), plain);
        }
    }

    #[test]
    fn a_zstd_frame_that_wants_a_larger_window_is_refused_before_it_gets_one() {
        // A frame without content: magic, descriptor, window (RFC 8878, 3.1.1.1.2), one empty last block.
        let frame = |window_log: u32| {
            let window = u8::try_from((window_log - 10) << 3).unwrap();
            let bytes = [0x28, 0xb5, 0x2f, 0xfd, 0, window, 1, 0, 0];
            Decoder::new(io::Cursor::new(bytes)).unwrap().read_to_end(&mut Vec::new())
        };
        assert_eq!(frame(MAX_ZSTD_WINDOW_LOG).unwrap(), 0);
        for window_log in [MAX_ZSTD_WINDOW_LOG + 1, 31, 41] {
            assert!(frame(window_log).is_err(), "a window of 2^{window_log} bytes");
        }
    }
}
