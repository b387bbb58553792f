//! Files as `xz` writes them (xz-file-format 1.2.1), read as they come.

use std::io::{self, BufRead, Read};

use xz4rust::{XzDecoder, XzError, XzNextBlockResult};

/// Dictionary to begin with, bytes.
const FIRST_DICTIONARY_BYTES: usize = 1 << 20;
/// Largest dictionary, bytes: what `xz -9` asks for.
const MAX_DICTIONARY_BYTES: usize = 64 << 20;

/// What an .xz file holds; of several streams one after the other, as `xz` itself.
pub struct Xz<R> {
    inner: R,
    decoder: Box<XzDecoder<'static>>,
    /// A stream has ended, and no other has begun.
    between: bool,
}

impl<R: BufRead> Xz<R> {
    pub fn new(inner: R) -> Self {
        let decoder = XzDecoder::in_heap_with_alloc_dict_size(FIRST_DICTIONARY_BYTES, MAX_DICTIONARY_BYTES);
        Self { inner, decoder, between: false }
    }

    /// The compressed stream.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Goes to the next stream; `false`: there is none.
    fn next_stream(&mut self) -> io::Result<bool> {
        loop {
            let input = self.inner.fill_buf()?;
            // Streams are padded with zeros (2.2).
            match input.iter().take_while(|byte| **byte == 0).count() {
                0 if input.is_empty() => return Ok(false),
                0 => break,
                padding => self.inner.consume(padding),
            }
        }
        self.decoder.reset();
        self.between = false;
        Ok(true)
    }
}

impl<R: BufRead> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if self.between && !self.next_stream()? {
                return Ok(0);
            }
            let input = self.inner.fill_buf()?;
            if input.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the xz stream is cut off"));
            }
            let (used, made) = match self.decoder.decode(input, buffer).map_err(|error| broken(&why(&error)))? {
                XzNextBlockResult::NeedMoreData(0, 0) => return Err(broken("the decoder stands still")),
                XzNextBlockResult::NeedMoreData(used, made) => (used, made),
                XzNextBlockResult::EndOfStream(used, made) => {
                    self.between = true;
                    (used, made)
                }
            };
            self.inner.consume(used);
            if made > 0 {
                return Ok(made);
            }
        }
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the xz stream can't be read: {why}"))
}

fn why(error: &XzError) -> String {
    match error {
        XzError::DictionaryTooLarge(bytes) => {
            format!("it wants a dictionary of {bytes} bytes, more than the {MAX_DICTIONARY_BYTES} of `xz -9`")
        }
        XzError::Sha256NotSupported => "it is checked by SHA-256; `xz --check=crc64` is understood".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'a small text\n' | xz`
    #[rustfmt::skip]
    const SMALL: [u8; 72] = [
        0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00, 0x00, 0x04, 0xe6, 0xd6, 0xb4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x16, 0x00,
        0x00, 0x00, 0x74, 0x2f, 0xe5, 0xa3, 0x01, 0x00, 0x0c, 0x61, 0x20, 0x73, 0x6d, 0x61, 0x6c, 0x6c, 0x20, 0x74,
        0x65, 0x78, 0x74, 0x0a, 0x00, 0x00, 0x00, 0x00, 0x1e, 0x59, 0x39, 0x8f, 0x5b, 0x73, 0xfe, 0xd4, 0x00, 0x01,
        0x25, 0x0d, 0x71, 0x19, 0xc4, 0xb6, 0x1f, 0xb6, 0xf3, 0x7d, 0x01, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5a,
    ];
    const TEXT: &str = "a small text\n";

    /// In pieces of so many bytes.
    fn unpacked(bytes: &[u8], piece: usize) -> io::Result<String> {
        let mut text = String::new();
        Xz::new(io::BufReader::with_capacity(piece, bytes)).read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn streams_are_read_whatever_the_pieces_and_one_after_the_other() {
        for piece in [1, 2, 7, 4096] {
            assert_eq!(unpacked(&SMALL, piece).unwrap(), TEXT);
            let padded = [&SMALL[..], &[0; 8], &SMALL].concat();
            assert_eq!(unpacked(&padded, piece).unwrap(), TEXT.repeat(2));
        }
    }

    #[test]
    fn what_is_cut_off_or_changed_is_an_error() {
        for length in 0..SMALL.len() {
            assert!(unpacked(&SMALL[..length], 64).is_err(), "{length} bytes");
        }
        for at in 0..SMALL.len() {
            let mut changed = SMALL;
            changed[at] ^= 0x10;
            assert!(unpacked(&changed, 64).is_err(), "byte {at}");
        }
        assert!(unpacked(&[&SMALL[..], b"more"].concat(), 64).is_err());
    }

    #[test]
    fn a_dictionary_beyond_the_limit_is_refused() {
        // The filter's property (5.3.1): 29 stands for 96 MiB, with the block header's checksum to match.
        let mut large = SMALL;
        large[16] = 29;
        let mut sum = flate2::Crc::new();
        sum.update(&large[12..20]);
        large[20..24].copy_from_slice(&sum.sum().to_le_bytes());
        let error = unpacked(&large, 64).unwrap_err().to_string();
        assert!(error.contains("a dictionary of 100663296 bytes"), "{error}");
    }
}
