//! Entries of a tar stream (POSIX pax, ustar, GNU), read block by block, under caps: a header can't make us
//! allocate what it likes, so the extended headers are read here and not by a library.

use std::collections::BTreeMap;
use std::io::{self, Read};

use super::head::{Extended, Head, Kind, head, number};
use super::pax::{pax_number, pax_records};
use super::sparse;

/// Size of a block.
pub const BLOCK_BYTES: usize = 512;
/// Longest extended header: a pax record with an ACL or a long name is far smaller.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// Takes note of the bytes of an archive that aren't kept as a file's content.
pub trait Note {
    /// These come next.
    fn note(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Takes no note.
impl Note for () {
    fn note(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// A tar stream.
pub struct Archive<R, N = ()> {
    inner: R,
    note: N,
    /// Bytes of the current entry's content that haven't been read.
    content_left: u64,
    /// Padding after the content.
    padding: u64,
}

impl<R: Read> Archive<R> {
    /// Entries of a stream.
    pub fn new(inner: R) -> Self {
        Self::noting(inner, ())
    }
}

impl<R: Read, N: Note> Archive<R, N> {
    /// Entries of a stream, taking note of everything but contents that are read as kept.
    pub fn noting(inner: R, note: N) -> Self {
        Self { inner, note, content_left: 0, padding: 0 }
    }

    /// What takes note.
    pub fn note(&mut self) -> &mut N {
        &mut self.note
    }

    /// The stream that the archive is read from.
    pub fn source(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The content of the current entry doesn't come with the stream; what follows it does.
    pub fn content_is_elsewhere(&mut self) {
        self.content_left = 0;
    }

    /// What took note, after the end.
    pub fn into_note(self) -> N {
        self.note
    }

    /// The next entry; `None` at the end of the archive. What is left of the content before is passed over.
    pub fn next_head(&mut self) -> io::Result<Option<Head>> {
        let mut extended = Extended::default();
        // An entry has at most one extended header of each kind; more are a loop without progress.
        for _ in 0..8 {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = number(&header.as_old().size, || header.entry_size())?;
            let kind = match header.entry_type().as_byte() {
                b'L' => {
                    extended.path = Some(until_nul(self.extension(size)?));
                    continue;
                }
                b'K' => {
                    extended.link = Some(until_nul(self.extension(size)?));
                    continue;
                }
                b'x' | b'X' => {
                    extended.records = pax_records(&self.extension(size)?)?;
                    continue;
                }
                b'g' => {
                    // Global records carry a comment in practice (git's commit ID).
                    self.extension(size)?;
                    continue;
                }
                b'0' | b'\0' | b'7' => Kind::File,
                b'1' => Kind::HardLink,
                b'2' => Kind::Symlink,
                b'3' => Kind::Char,
                b'4' => Kind::Block,
                b'5' => Kind::Folder,
                b'6' => Kind::Fifo,
                b'S' => Kind::File,
                other => return Err(bad(format!("entry of unknown type {:?}", char::from(other)))),
            };
            let old_map = match header.entry_type().as_byte() {
                b'S' => Some(sparse::gnu(header.as_bytes(), || self.block())?),
                _ => None,
            };
            let map = std::mem::take(&mut extended.records);
            let mut head = head(kind, &header, &map, extended)?;
            self.content_left = head.size_bytes;
            self.padding = padding(head.size_bytes);
            self.sparse(&mut head, &header, &map, old_map)?;
            return Ok(Some(head));
        }
        Err(bad("too many extended headers before an entry"))
    }

    /// Content of the current entry. Where it is kept in a file, no note is taken of it.
    pub fn content(&mut self, is_kept: bool) -> Content<'_, R, N> {
        Content { archive: self, is_kept }
    }

    /// Reads what follows the end of the archive (programs pad to their block size), up to a limit in bytes.
    pub fn trailer(&mut self, limit: u64) -> io::Result<()> {
        let mut buffer = vec![0; 16 * BLOCK_BYTES];
        let mut total: u64 = 0;
        while total <= limit {
            let count = read_full(&mut self.inner, &mut buffer)?;
            self.note.note(buffer.get(..count).unwrap_or_default())?;
            total += count as u64;
            if count < buffer.len() {
                return Ok(());
            }
        }
        Err(bad("too much follows the end of the archive"))
    }

    /// Finds where the content of a sparse file belongs, and what its name is.
    fn sparse(
        &mut self,
        head: &mut Head,
        header: &tar::Header,
        records: &BTreeMap<Vec<u8>, Vec<u8>>,
        old_map: Option<Vec<(u64, u64)>>,
    ) -> io::Result<()> {
        let record = |name: &str| records.get(format!("GNU.sparse.{name}").as_bytes());
        let length = |name: &str| {
            let text = record(name).ok_or_else(|| bad("a sparse file without its length"))?;
            pax_number(text).ok_or_else(|| bad("an unusable length of a sparse file"))
        };
        let (segments, real_bytes) = if let Some(map) = old_map {
            (map, sparse::gnu_real_bytes(header.as_bytes())?)
        } else if record("major").is_some_and(|major| major == b"1") {
            let (map, taken) = sparse::pax_1(&mut self.content(false))?;
            head.size_bytes -= taken;
            (map, length("realsize")?)
        } else if let Some(map) = record("map") {
            (sparse::pax_0(map)?, length("size")?)
        } else if records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(bad("a sparse file of an unknown form"));
        } else {
            return Ok(());
        };
        if let Some(name) = record("name") {
            head.path.clone_from(name);
        }
        head.sparse = Some(sparse::Map::checked(segments, real_bytes, head.size_bytes)?);
        Ok(())
    }

    fn block(&mut self) -> io::Result<[u8; BLOCK_BYTES]> {
        let mut block = [0; BLOCK_BYTES];
        if read_full(&mut self.inner, &mut block)? < BLOCK_BYTES {
            return Err(cut());
        }
        self.note.note(&block)?;
        Ok(block)
    }

    fn header(&mut self) -> io::Result<Option<tar::Header>> {
        let mut header = tar::Header::new_old();
        for zero_blocks in 0..2 {
            match read_full(&mut self.inner, header.as_mut_bytes())? {
                BLOCK_BYTES => self.note.note(header.as_bytes())?,
                // Some archives lack the two blocks of zeros at their end.
                0 => return Ok(None),
                _ => return Err(cut()),
            }
            if header.as_bytes().iter().any(|byte| *byte != 0) {
                if zero_blocks > 0 {
                    return Err(bad("a block of zeros in the middle of the archive"));
                }
                check_sum(&header)?;
                return Ok(Some(header));
            }
        }
        Ok(None)
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENDED_BYTES {
            return Err(bad(format!("an extended header of {size} bytes, more than {MAX_EXTENDED_BYTES}")));
        }
        self.content_left = size;
        self.padding = padding(size);
        let mut bytes = Vec::new();
        self.content(false).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> io::Result<()> {
        self.content_left = self.content_left.saturating_add(std::mem::take(&mut self.padding));
        io::copy(&mut self.content(false), &mut io::sink()).map(|_| ())
    }
}

/// Reads the content of an entry; a stream that ends before it does is an error.
pub struct Content<'a, R, N> {
    archive: &'a mut Archive<R, N>,
    is_kept: bool,
}

impl<R: Read, N: Note> Read for Content<'_, R, N> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.archive.content_left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = self.archive.inner.read(buffer)?;
        if count == 0 {
            return Err(cut());
        }
        self.archive.content_left -= count as u64;
        if !self.is_kept {
            self.archive.note.note(buffer.get(..count).unwrap_or_default())?;
        }
        Ok(count)
    }
}

fn check_sum(header: &tar::Header) -> io::Result<()> {
    // The checksum counts its own field as blanks; some old programs summed signed bytes.
    let bytes = header.as_bytes();
    let field = 148..156;
    let byte = |(index, byte): (usize, &u8)| if field.contains(&index) { b' ' } else { *byte };
    let unsigned: u32 = bytes.iter().enumerate().map(|pair| u32::from(byte(pair))).sum();
    let signed: i32 = bytes.iter().enumerate().map(|pair| i32::from(byte(pair).cast_signed())).sum();
    let told = header.cksum()?;
    if told == unsigned || i64::from(told) == i64::from(signed) {
        Ok(())
    } else {
        Err(bad("a damaged header (checksum)"))
    }
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK_BYTES as u64
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

fn read_full(inner: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match inner.read(rest) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive ends in the middle of an entry")
}

pub fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
