//! A bundle ([`keel_spec::bundle`]) in the place of a repository: the same client reads it, and believes it as little.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use keel_spec::api::ErrorCode;
use keel_spec::bundle::{BLOCK_BYTES, INFO_NAME, Info, MAX_BYTES, MAX_INFO_BYTES, Reader, name_of};

use crate::failure::{Failure, Result, chain};
use crate::source::{Opened, Source};

/// A file as a source of one file, whatever it is called: a regular one, or pieces of a disk.
pub struct LocalFile {
    file: Arc<File>,
    name: String,
    /// Where its bytes from this offset on are: offset in it, on the disk.
    pieces: Vec<(u64, Range<u64>)>,
    size: u64,
}

impl LocalFile {
    /// Of a file that nobody writes to any more.
    pub fn new(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Self::in_pieces(file, "the file".into(), &[(0, metadata.len())]))
    }

    /// Of pieces of a disk, offset and length of each.
    pub fn in_pieces(file: File, name: String, given: &[(u64, u64)]) -> Self {
        let (mut pieces, mut size) = (Vec::new(), 0u64);
        for (offset, length) in given {
            pieces.push((size, *offset..offset.saturating_add(*length)));
            size = size.saturating_add(*length);
        }
        Self { file: Arc::new(file), name, pieces, size }
    }

    /// Its length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where a range of it is on the disk; what lies beyond its end is left out.
    fn places(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let first = self.pieces.partition_point(|(start, place)| start + (place.end - place.start) <= range.start);
        let within = self.pieces[first..].iter().take_while(|(start, _)| *start < range.end);
        within.map(|(start, place)| {
            let skip = range.start.saturating_sub(*start);
            place.start + skip..place.end.min(place.start + (range.end - start))
        })
    }
}

impl Source for LocalFile {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn open(&self, _: &str, ranges: &[Range<u64>], _: u64) -> io::Result<Option<Opened>> {
        let whole = 0..self.size;
        let wanted = if ranges.is_empty() { std::slice::from_ref(&whole) } else { ranges };
        // Never short without a word: a regular file may have been cut since, which reading it shows.
        if wanted.iter().any(|range| range.end > self.size) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("it has only {} bytes", self.size)));
        }
        let mut left: Vec<Range<u64>> = wanted.iter().flat_map(|range| self.places(range)).collect();
        left.reverse();
        let pieces = Pieces { file: Arc::clone(&self.file), left };
        Ok(Some(Opened { ranged: !ranges.is_empty(), body: Box::new(pieces) }))
    }
}

/// Ranges of a file, one after the other; the next one is the last of the list.
struct Pieces {
    file: Arc<File>,
    left: Vec<Range<u64>>,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left.last().is_some_and(|range| range.start >= range.end) {
            self.left.pop();
        }
        let Some(range) = self.left.last_mut() else { return Ok(0) };
        let count = (range.end - range.start).min(buffer.len() as u64) as usize;
        let read = self.file.read_at(&mut buffer[..count], range.start)?;
        if read == 0 && count > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        range.start += read as u64;
        Ok(read)
    }
}

/// A bundle, from wherever ranges of it can be had.
pub struct Bundle<'a> {
    source: &'a dyn Source,
    /// What the source calls it.
    path: String,
    files: BTreeMap<String, Range<u64>>,
    size: u64,
    /// What it says of itself; not to be believed.
    pub info: Info,
}

impl<'a> Bundle<'a> {
    /// Learns where everything is. `size`: its length in bytes, if known.
    pub fn open(source: &'a dyn Source, path: &str, size: Option<u64>) -> Result<Self> {
        let refused = |code, why: &dyn std::fmt::Display| {
            Failure::new(code, format!("install from the bundle: {} {why}", source.name()))
        };
        let mut reader = Reader::default();
        // Bounded: a bundle has only so many files.
        while let Some(at) = reader.next_header() {
            let mut block = [0; BLOCK_BYTES];
            read_range(source, path, at..at + BLOCK_BYTES as u64, &mut block).map_err(|error| {
                let short = error.kind() == io::ErrorKind::UnexpectedEof && size.is_some();
                let code = if short { ErrorCode::BadRequest } else { ErrorCode::Network };
                refused(code, &format!("can't be read at byte {at}: {}", chain(&error)))
            })?;
            reader.take(&block).map_err(|error| refused(ErrorCode::BadRequest, &error))?;
        }
        let length = reader.size();
        let files = reader.finish(size).map_err(|error| refused(ErrorCode::BadRequest, &error))?;
        let range = files.get(INFO_NAME).cloned().unwrap_or_default();
        let mut bytes = vec![0; (range.end - range.start).min(MAX_INFO_BYTES) as usize];
        read_range(source, path, range, &mut bytes)
            .map_err(|error| refused(ErrorCode::Network, &format!("can't be read: {}", chain(&error))))?;
        let info = serde_json::from_slice(&bytes)
            .map_err(|error| refused(ErrorCode::BadRequest, &format!("has an unreadable {INFO_NAME}: {error}")))?;
        Ok(Self { source, path: path.to_owned(), files, size: length, info })
    }

    /// Bytes that it has, by its headers.
    pub fn size(&self) -> u64 {
        self.size
    }
}

/// Fills a buffer from a range of a source's file.
fn read_range(source: &dyn Source, path: &str, range: Range<u64>, buffer: &mut [u8]) -> io::Result<()> {
    if buffer.is_empty() {
        return Ok(());
    }
    // A server without ranges answers with the whole: that is said better below than by a cap.
    let opened = source.open(path, std::slice::from_ref(&range), MAX_BYTES)?;
    let opened = opened.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it isn't there"))?;
    if !opened.ranged {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the server serves no ranges: fetch the bundle, and send it",
        ));
    }
    let mut body = opened.body;
    body.read_exact(buffer)
}

impl Source for Bundle<'_> {
    fn name(&self) -> String {
        format!("in {}", self.source.name())
    }

    fn open(&self, path: &str, ranges: &[Range<u64>], max_bytes: u64) -> io::Result<Option<Opened>> {
        let Some(place) = self.files.get(&name_of(path)) else { return Ok(None) };
        let length = place.end - place.start;
        if ranges.is_empty() && length > max_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {max_bytes} bytes")));
        }
        if place.is_empty() {
            return Ok(Some(Opened { ranged: !ranges.is_empty(), body: Box::new(io::empty()) }));
        }
        let whole = 0..length;
        let asked = if ranges.is_empty() { std::slice::from_ref(&whole) } else { ranges };
        if asked.iter().any(|range| range.start > range.end || range.end > length) {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("it has only {length} bytes there")));
        }
        let moved: Vec<Range<u64>> =
            asked.iter().map(|range| place.start + range.start..place.start + range.end).collect();
        let most = max_bytes.clamp(length, MAX_BYTES);
        let Some(opened) = self.source.open(&self.path, &moved, most)? else { return Ok(None) };
        match (opened.ranged, ranges.is_empty()) {
            // What came is the whole entry, but to who asked it is a whole file.
            (true, whole) => Ok(Some(Opened { ranged: !whole, body: opened.body })),
            // The whole bundle: of no use. With several ranges, one at a time may work.
            (false, false) => Ok(Some(Opened { ranged: false, body: Box::new(io::empty()) })),
            (false, true) => Err(io::Error::new(io::ErrorKind::Unsupported, "the server serves no ranges")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::bundle::{header, padding};

    fn file(bytes: &[u8]) -> LocalFile {
        let path = std::env::temp_dir().join(format!("keel-updater-bundle-{}-{:p}", std::process::id(), bytes));
        std::fs::write(&path, bytes).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        LocalFile::new(file).unwrap()
    }

    fn bundle(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, content) in files {
            let length = content.len() as u64;
            bytes.extend(header(name, length).unwrap());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len() + padding(length) as usize, 0);
        }
        bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
        bytes
    }

    const INFO: &[u8] = br#"{"version":"1.2.3","profile":"cloud","mood":"good"}"#;

    fn text(opened: Option<Opened>) -> String {
        let mut text = String::new();
        opened.unwrap().body.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_bundle_serves_what_a_repository_would() {
        let name = "targets/keel-cloud-1.2.3.root";
        let file = file(&bundle(&[(INFO_NAME, INFO), ("1.root.json", b"{}"), (name, b"0123456789")]));
        let bundle = Bundle::open(&file, "x", Some(file.size())).unwrap();
        assert_eq!(bundle.info.version, "1.2.3".parse().unwrap());
        let path = format!("targets/{}.keel-cloud-1.2.3.root", "a".repeat(64));
        let whole = bundle.open(&path, &[], 10).unwrap();
        assert!(!whole.as_ref().unwrap().ranged);
        assert_eq!(text(whole), "0123456789");
        assert_eq!(text(bundle.open(&path, &[1..3, 7..10], 10).unwrap()), "12789");
        assert!(bundle.open("2.root.json", &[], 10).unwrap().is_none());
        assert!(bundle.open(&path, &[], 9).is_err(), "longer than asked for");
        // What lies behind a file is another file's.
        assert!(bundle.open(&path, std::slice::from_ref(&(5..11)), 99).is_err());
    }

    #[test]
    fn a_file_in_pieces_is_read_as_one() {
        let bytes: Vec<u8> = (0..=255).collect();
        let whole = file(&bytes).file.try_clone().unwrap();
        let file = LocalFile::in_pieces(whole, "x".into(), &[(100, 10), (50, 5), (200, 20)]);
        let read = |ranges: &[Range<u64>]| {
            let mut bytes = Vec::new();
            file.open("", ranges, 0).map(|opened| opened.unwrap().body.read_to_end(&mut bytes).unwrap())?;
            Ok::<_, io::Error>(bytes)
        };
        let all: Vec<u8> = (100..110).chain(50..55).chain(200..220).collect();
        assert_eq!(read(&[]).unwrap(), all);
        for from in 0..35 {
            for to in from..=35 {
                assert_eq!(read(&[from as u64..to as u64, 3..4]).unwrap(), [&all[from..to], &all[3..4]].concat());
            }
        }
        assert_eq!(read(std::slice::from_ref(&(30..36))).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_bundle_is_refused_with_the_reason() {
        let refused = |bytes: &[u8]| {
            let file = file(bytes);
            let failure = Bundle::open(&file, "x", Some(file.size())).map(|_| ()).unwrap_err();
            assert_eq!(failure.code, ErrorCode::BadRequest, "{failure}");
            failure.message
        };
        assert!(refused(b"<html>").contains("can't be read at byte 0"));
        assert!(refused(&[b'<'; 2000]).contains("not a bundle"));
        assert!(refused(&bundle(&[(INFO_NAME, b"{}")])).contains("unreadable keel-bundle.json"));
        let whole = bundle(&[(INFO_NAME, INFO), ("1.root.json", b"{}")]);
        assert!(refused(&whole[..whole.len() - 512]).contains("cut off"));
        assert!(LocalFile::new(File::open("/dev/null").unwrap()).is_err());
    }
}
