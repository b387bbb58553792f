//! A release in one file: the metadata that vouches for it, and its targets, as an uncompressed tar archive.
//!
//! POSIX ustar (IEEE Std 1003.1, pax, "ustar Interchange Format"), so that any `tar` lists it; but of one form alone:
//! regular files, in the order of [`Kind`], by number or name within a kind, no name twice, ended by two blocks of zeros
//! and nothing after them. A reader learns where everything is from the headers, and needs no content for it.
//!
//! Nothing in a bundle is trusted for being in it: it takes the place of a repository's files, no more.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::release::Version;
use crate::tuf::Role;

/// Bytes of a header; contents are filled up to a multiple of it.
pub const BLOCK_BYTES: usize = 512;
/// Longest bundle.
pub const MAX_BYTES: u64 = 4 << 30;
/// Most files.
pub const MAX_FILES: usize = 600;
/// Longest [`Info`].
pub const MAX_INFO_BYTES: u64 = 4 << 10;
/// Name of the first file.
pub const INFO_NAME: &str = "keel-bundle.json";
/// Longest name: that of a field of the header.
const MAX_NAME_BYTES: usize = 100;
const TARGETS: &str = "targets/";

/// What is in a bundle, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The release's version.
    pub version: Version,
    /// Its profile.
    pub profile: String,
}

/// Files in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`Info`].
    Info,
    /// `N.root.json`.
    Root(u64),
    /// `timestamp.json`.
    Timestamp,
    /// `N.snapshot.json`.
    Snapshot(u64),
    /// `N.targets.json`.
    Targets(u64),
    /// `targets/NAME`.
    Target,
}

/// Why something isn't a bundle.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// Not a header of ustar.
    #[error("is not a bundle: no ustar header at byte {0}; make one with keel-image bundle")]
    NoHeader(u64),
    /// A header whose checksum is wrong.
    #[error("is damaged: the header at byte {0} has a wrong checksum")]
    Checksum(u64),
    /// Not a regular file, or a number that isn't octal.
    #[error("is refused: the header at byte {0} is of a kind that bundles don't have")]
    Unusual(u64),
    /// A name that bundles don't have.
    #[error("is refused: it holds a file named {0:?}")]
    Name(String),
    /// Not in the order of bundles.
    #[error("is refused: {name} comes after {before}")]
    Order {
        /// The file.
        name: String,
        /// The one before.
        before: String,
    },
    /// Longer than such a file may be.
    #[error("is refused: {name} is {length} bytes long, {most} are the most")]
    Length {
        /// The file.
        name: String,
        /// Its length.
        length: u64,
        /// The longest allowed.
        most: u64,
    },
    /// Too many files.
    #[error("is refused: it holds more than {MAX_FILES} files")]
    TooMany,
    /// It ends early, or goes on after its end.
    #[error("is cut off or goes on after its end: it is {size} bytes long, its headers say {want}")]
    Size {
        /// Its length.
        size: u64,
        /// What it should be.
        want: u64,
    },
    /// It has no [`Info`].
    #[error("is refused: it does not begin with {INFO_NAME}")]
    NoInfo,
}

impl Kind {
    /// Of a name; `None`: bundles have no such file.
    fn of(name: &str) -> Option<Self> {
        let number = |suffix: &str| {
            let digits = name.strip_suffix(suffix)?;
            let plain = !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        match name {
            INFO_NAME => Some(Self::Info),
            "timestamp.json" => Some(Self::Timestamp),
            _ if name.starts_with(TARGETS) => {
                let rest = name.get(TARGETS.len()..)?;
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
                (rest.starts_with("keel-") && rest.bytes().all(fits)).then_some(Self::Target)
            }
            _ => number(".root.json")
                .map(Self::Root)
                .or_else(|| number(".snapshot.json").map(Self::Snapshot))
                .or_else(|| number(".targets.json").map(Self::Targets)),
        }
    }

    fn max_bytes(self) -> u64 {
        match self {
            Self::Info => MAX_INFO_BYTES,
            Self::Root(_) => Role::Root.max_bytes(),
            Self::Timestamp => Role::Timestamp.max_bytes(),
            Self::Snapshot(_) => Role::Snapshot.max_bytes(),
            Self::Targets(_) => Role::Targets.max_bytes(),
            Self::Target => MAX_BYTES,
        }
    }

    /// Whether a file of this kind may follow one of another: kinds in their order, roots one by one, one of the others.
    fn follows(self, name: &str, before: (Self, &str)) -> bool {
        match (before.0, self) {
            (Self::Root(a), Self::Root(b)) => a.checked_add(1) == Some(b),
            (Self::Target, Self::Target) => before.1 < name,
            (Self::Snapshot(_), Self::Snapshot(_)) | (Self::Targets(_), Self::Targets(_)) => false,
            (a, b) => a < b,
        }
    }
}

/// What a name and a length take in a bundle: the header.
pub fn header(name: &str, length: u64) -> Result<[u8; BLOCK_BYTES], BundleError> {
    if Kind::of(name).is_none() || name.len() > MAX_NAME_BYTES {
        return Err(BundleError::Name(name.to_owned()));
    }
    let mut block = [0; BLOCK_BYTES];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = block.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{length:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum = format!("{:06o}\0 ", checksum(&block));
    block[148..156].copy_from_slice(sum.as_bytes());
    Ok(block)
}

/// The bytes of zeros that follow a content.
pub fn padding(length: u64) -> u64 {
    length.next_multiple_of(BLOCK_BYTES as u64) - length
}

/// Sum of a header's bytes, with spaces in the place of the sum itself.
fn checksum(block: &[u8; BLOCK_BYTES]) -> u64 {
    let without = block.iter().enumerate().map(|(at, byte)| if (148..156).contains(&at) { b' ' } else { *byte });
    without.map(u64::from).sum()
}

/// Digits of base 8, ended by a zero or a space.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?.trim_end_matches(['\0', ' ']);
    let digits = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    digits.then(|| u64::from_str_radix(text, 8).ok())?
}

/// Reads headers one by one, and learns from them where everything is.
#[derive(Clone, Debug, Default)]
pub struct Reader {
    at: u64,
    last: Option<(Kind, String)>,
    files: BTreeMap<String, Range<u64>>,
    ended: bool,
}

impl Reader {
    /// Where the next header is; `None`: the end has been read.
    pub fn next_header(&self) -> Option<u64> {
        (!self.ended).then_some(self.at)
    }

    /// Takes the header in that [`Reader::next_header`] names.
    pub fn take(&mut self, block: &[u8; BLOCK_BYTES]) -> Result<(), BundleError> {
        let at = self.at;
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return if self.last.is_some() { Ok(()) } else { Err(BundleError::NoHeader(at)) };
        }
        if block.get(257..265) != Some(b"ustar\x0000") {
            return Err(BundleError::NoHeader(at));
        }
        let field = |from: usize, length: usize| block.get(from..from + length).unwrap_or_default();
        if octal(field(148, 8)) != Some(checksum(block)) {
            return Err(BundleError::Checksum(at));
        }
        let plain = field(156, 1) == b"0" && field(345, 155).iter().all(|byte| *byte == 0);
        let length = octal(field(124, 12)).filter(|_| plain).ok_or(BundleError::Unusual(at))?;
        let name = field(0, MAX_NAME_BYTES);
        let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        self.add(&String::from_utf8_lossy(name.get(..end).unwrap_or_default()), length)
    }

    fn add(&mut self, name: &str, length: u64) -> Result<(), BundleError> {
        let shown = || name.chars().filter(|char| !char.is_control()).take(MAX_NAME_BYTES).collect::<String>();
        let kind = Kind::of(name).ok_or_else(|| BundleError::Name(shown()))?;
        match &self.last {
            None if kind != Kind::Info => return Err(BundleError::NoInfo),
            Some((before_kind, before)) if !kind.follows(name, (*before_kind, before)) => {
                return Err(BundleError::Order { name: name.into(), before: before.clone() });
            }
            _ => {}
        }
        if self.files.len() == MAX_FILES {
            return Err(BundleError::TooMany);
        }
        let from = self.at + BLOCK_BYTES as u64;
        let most = kind.max_bytes().min(MAX_BYTES.saturating_sub(from));
        if length > most {
            return Err(BundleError::Length { name: name.into(), length, most });
        }
        self.files.insert(name.to_owned(), from..from + length);
        self.last = Some((kind, name.to_owned()));
        self.at = from + length + padding(length);
        Ok(())
    }

    /// Bytes that a bundle with these headers has.
    pub fn size(&self) -> u64 {
        self.at + 2 * BLOCK_BYTES as u64
    }

    /// Where each file's content is, by name. `size`: the bundle's length, where it is known.
    pub fn finish(self, size: Option<u64>) -> Result<BTreeMap<String, Range<u64>>, BundleError> {
        let want = self.size();
        match size {
            Some(size) if size != want || !self.ended => Err(BundleError::Size { size, want }),
            _ => Ok(self.files),
        }
    }
}

/// The name in a bundle of a file that a repository has at `path`: targets there have their digest before their name.
pub fn name_of(path: &str) -> String {
    let target = || {
        let (digest, name) = path.strip_prefix(TARGETS)?.split_once('.')?;
        let hex = digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| format!("{TARGETS}{name}"))
    };
    target().unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
