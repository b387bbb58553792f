//! Entries of a tar stream (POSIX pax, ustar, GNU), read block by block, under caps: a header can't make us
//! allocate what it likes, so the extended headers are read here and not by a library.

use std::collections::BTreeMap;
use std::io::{self, Read};

/// Size of a block.
const BLOCK_BYTES: usize = 512;
/// Longest extended header: a pax record with an ACL or a long name is far smaller.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;
/// Extended attributes of one entry.
const MAX_XATTRS: usize = 64;
/// Prefix of extended attributes in pax records.
const XATTR_PREFIX: &[u8] = b"SCHILY.xattr.";

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Hard link to an earlier entry.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Folder.
    Folder,
    /// Named pipe.
    Fifo,
}

/// Head of an entry. Its content, `size_bytes` long, is read from [`Archive::content`].
#[derive(Clone, Debug)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Path as in the archive.
    pub path: Vec<u8>,
    /// Target of a link.
    pub link: Vec<u8>,
    /// Permission bits with set-user-ID and the like.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since 1970.
    pub mtime_s: i64,
    /// Nanoseconds beyond.
    pub mtime_ns: u32,
    /// Device number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the content.
    pub size_bytes: u64,
}

/// A tar stream.
pub struct Archive<R> {
    inner: R,
    /// Bytes of the current entry's content that haven't been read.
    content_left: u64,
    /// Padding after the content.
    padding: u64,
}

/// What the extended headers before an entry say of it.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<R: Read> Archive<R> {
    /// Entries of a stream.
    pub fn new(inner: R) -> Self {
        Self { inner, content_left: 0, padding: 0 }
    }

    /// The next entry; `None` at the end of the archive. What is left of the content before is passed over.
    pub fn next(&mut self) -> io::Result<Option<Head>> {
        let mut extended = Extended::default();
        // An entry has at most one extended header of each kind; more are a loop without progress.
        for _ in 0..8 {
            self.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.size()?;
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
                b'S' => return Err(bad("sparse files in GNU's own format aren't supported")),
                other => return Err(bad(format!("entry of unknown type {:?}", char::from(other)))),
            };
            let head = head(kind, &header, extended)?;
            self.content_left = head.size_bytes;
            self.padding = padding(head.size_bytes);
            return Ok(Some(head));
        }
        Err(bad("too many extended headers before an entry"))
    }

    /// Content of the current entry.
    pub fn content(&mut self) -> Content<'_, R> {
        Content { archive: self }
    }

    fn header(&mut self) -> io::Result<Option<tar::Header>> {
        let mut header = tar::Header::new_old();
        for zero_blocks in 0..2 {
            match read_full(&mut self.inner, header.as_mut_bytes())? {
                BLOCK_BYTES => {}
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
        self.content().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> io::Result<()> {
        let left = self.content_left + self.padding;
        self.content_left = 0;
        self.padding = 0;
        let skipped = io::copy(&mut self.inner.by_ref().take(left), &mut io::sink())?;
        if skipped == left { Ok(()) } else { Err(cut()) }
    }
}

/// Reads the content of an entry; a stream that ends before it does is an error.
pub struct Content<'a, R> {
    archive: &'a mut Archive<R>,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.archive.content_left).unwrap_or(usize::MAX).min(buffer.len());
        let Some(buffer) = buffer.get_mut(..most).filter(|buffer| !buffer.is_empty()) else { return Ok(0) };
        let count = self.archive.inner.read(buffer)?;
        if count == 0 {
            return Err(cut());
        }
        self.archive.content_left -= count as u64;
        Ok(count)
    }
}

fn head(kind: Kind, header: &tar::Header, extended: Extended) -> io::Result<Head> {
    let record = |name: &str| extended.records.get(name.as_bytes());
    if extended.records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
        return Err(bad("sparse files in GNU's pax format aren't supported"));
    }
    let (mtime_s, mtime_ns) = match record("mtime") {
        Some(text) => pax_time(text).ok_or_else(|| bad("an unusable time in a pax header"))?,
        None => (i64::try_from(header.mtime()?).unwrap_or(i64::MAX), 0),
    };
    let path = record("path").cloned().or(extended.path).unwrap_or_else(|| header.path_bytes().into_owned());
    let link = record("linkpath")
        .cloned()
        .or(extended.link)
        .unwrap_or_else(|| header.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default());
    let device = (header.device_major().ok().flatten().unwrap_or(0), header.device_minor().ok().flatten().unwrap_or(0));
    let size = match record("size") {
        Some(text) => number(text).ok_or_else(|| bad("an unusable size in a pax header"))?,
        None => header.size()?,
    };
    // Before POSIX, folders were regular files whose name ends in a slash.
    let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Folder } else { kind };
    let xattrs: Vec<_> = extended
        .records
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(XATTR_PREFIX)?.to_vec(), value.clone())))
        .collect();
    if xattrs.len() > MAX_XATTRS {
        return Err(bad(format!("more than {MAX_XATTRS} extended attributes on one entry")));
    }
    Ok(Head {
        kind,
        path,
        link,
        mode: header.mode()? & 0o7777,
        uid: id(record("uid"), header.uid()?)?,
        gid: id(record("gid"), header.gid()?)?,
        mtime_s,
        mtime_ns,
        device,
        xattrs,
        // Only regular files have content; what a header claims for others is a relic (hard links in old formats).
        size_bytes: if matches!(kind, Kind::File) { size } else { 0 },
    })
}

fn id(record: Option<&Vec<u8>>, header: u64) -> io::Result<u32> {
    let value = match record {
        Some(text) => number(text).ok_or_else(|| bad("an unusable user or group in a pax header"))?,
        None => header,
    };
    // 2^32-1 means "no one" to the kernel.
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| bad(format!("user or group {value} is too large")))
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// Decimal seconds with an optional fraction (POSIX pax, "mtime").
fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok()? } else { return None };
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

/// Records of the form `length key=value\n`, where the length counts itself; values may hold any byte.
fn pax_records(mut bytes: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let malformed = || bad("a malformed pax header");
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let (digits, _) = bytes.split_at_checked(space).ok_or_else(malformed)?;
        let length = number(digits).and_then(|length| usize::try_from(length).ok()).ok_or_else(malformed)?;
        let record =
            bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let (key, value) = record.split_at_checked(equals).ok_or_else(malformed)?;
        records.insert(key.to_vec(), value.get(1..).unwrap_or_default().to_vec());
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(records)
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

fn bad(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}
