//! Versions, release descriptions and the file names of UKIs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::verity::RootHash;

/// A release's version: a semantic version without build metadata, ordered as semver orders.
/// At most 64 bytes, so that it fits into file names and EFI variables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version(semver::Version);

/// Why text isn't a release version.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a release version: want MAJOR.MINOR.PATCH[-PRE], at most 64 bytes")]
pub struct InvalidVersion(pub String);

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, InvalidVersion> {
        let refuse = || InvalidVersion(text.chars().take(80).collect());
        let version = semver::Version::parse(text).map_err(|_| refuse())?;
        if text.len() > 64 || !version.build.is_empty() {
            return Err(refuse());
        }
        Ok(Self(version))
    }
}

impl Version {
    /// Whether a requirement lets it through.
    pub fn matches(&self, requirement: &semver::VersionReq) -> bool {
        requirement.matches(&self.0)
    }
}

impl TryFrom<String> for Version {
    type Error = InvalidVersion;

    fn try_from(text: String) -> Result<Self, InvalidVersion> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What one release consists of. It is a target of the update repository, `keel-<profile>-<version>.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its version.
    pub version: Version,
    /// Which selection of kernel and modules it is made from, `cloud` or `metal`.
    pub profile: String,
    /// When it was built, seconds since the Unix epoch; a host's clock never runs below it.
    pub built_unix_s: u64,
    /// The hash tree's root.
    pub root_hash: RootHash,
    /// Blocks of 4096 bytes of the root image.
    pub root_blocks: u64,
    /// Bytes of the hash tree's file.
    pub tree_bytes: u64,
    /// Bytes of the UKI.
    pub uki_bytes: u64,
    /// Bytes of the UKI's block list; a release without one has its UKI fetched whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uki_blocks_bytes: Option<u64>,
    /// Only a release of at least this version may be updated from directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows_at_least: Option<Version>,
}

impl Release {
    /// The files that it has, the description last.
    pub fn files(&self) -> Vec<ReleaseFile> {
        let blocks = self.uki_blocks_bytes.map(|_| ReleaseFile::UkiBlocks);
        let mut files = vec![ReleaseFile::Root, ReleaseFile::Tree, ReleaseFile::Uki];
        files.extend(blocks.into_iter().chain([ReleaseFile::Description]));
        files
    }

    /// Bytes that a file of it must have; `None` for the description itself, and for a file that it hasn't.
    pub fn file_bytes(&self, file: ReleaseFile) -> Option<u64> {
        match file {
            ReleaseFile::Description => None,
            ReleaseFile::Root => Some(self.root_blocks.saturating_mul(crate::verity::BLOCK_BYTES as u64)),
            ReleaseFile::Tree => Some(self.tree_bytes),
            ReleaseFile::Uki => Some(self.uki_bytes),
            ReleaseFile::UkiBlocks => self.uki_blocks_bytes,
        }
    }
}

/// The files of a release; each is a target of the update repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReleaseFile {
    /// The release description itself.
    Description,
    /// The erofs root image.
    Root,
    /// Its dm-verity hash tree.
    Tree,
    /// The unified kernel image.
    Uki,
    /// Digests of the UKI's blocks, a [`crate::blocks::BlockList`].
    UkiBlocks,
}

impl ReleaseFile {
    /// Name of the target: `keel-<profile>-<version>.<suffix>`.
    pub fn target_name(self, profile: &str, version: &Version) -> String {
        let suffix = match self {
            Self::Description => "json",
            Self::Root => "root",
            Self::Tree => "verity",
            Self::Uki => "efi",
            Self::UkiBlocks => "blocks",
        };
        format!("keel-{profile}-{version}.{suffix}")
    }
}

/// File name of a UKI on the EFI system partition: `keel_<version>[+<left>[-<done>]].efi`
/// (systemd's Automatic Boot Assessment).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UkiName {
    /// The release in it.
    pub version: Version,
    /// Tries left; `None` once the release proved good.
    pub tries_left: Option<u32>,
    /// Tries done.
    pub tries_done: u32,
}

impl UkiName {
    /// Folder of UKIs on the EFI system partition.
    pub const FOLDER: &str = "EFI/Linux";

    /// The name of a release that proved good.
    pub fn good(version: Version) -> Self {
        Self { version, tries_left: None, tries_done: 0 }
    }

    /// The name of a release that still has to prove itself.
    pub fn on_trial(version: Version, tries_left: u32) -> Self {
        Self { version, tries_left: Some(tries_left), tries_done: 0 }
    }

    /// Whether the boot loader offers it before entries that ran out of tries.
    pub fn is_offered(&self) -> bool {
        self.tries_left != Some(0)
    }
}

impl fmt::Display for UkiName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "keel_{}", self.version)?;
        if let Some(left) = self.tries_left {
            write!(f, "+{left}")?;
            if self.tries_done > 0 {
                write!(f, "-{}", self.tries_done)?;
            }
        }
        f.write_str(".efi")
    }
}

/// Why a file name isn't that of a Keel UKI.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a Keel UKI: want keel_VERSION[+LEFT[-DONE]].efi")]
pub struct InvalidUkiName(pub String);

impl FromStr for UkiName {
    type Err = InvalidUkiName;

    fn from_str(name: &str) -> Result<Self, InvalidUkiName> {
        let parse = || {
            let stem = name.strip_prefix("keel_")?.strip_suffix(".efi")?;
            let Some((version, counter)) = stem.split_once('+') else {
                return Some(Self::good(stem.parse().ok()?));
            };
            let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
            Some(Self {
                version: version.parse().ok()?,
                tries_left: Some(left.parse().ok()?),
                tries_done: done.parse().ok()?,
            })
        };
        parse().ok_or_else(|| InvalidUkiName(name.chars().take(80).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uki_names_round_trip() {
        for name in ["keel_1.2.3.efi", "keel_1.2.3+3.efi", "keel_1.2.3-rc.1+2-1.efi", "keel_0.1.0+0-3.efi"] {
            assert_eq!(name.parse::<UkiName>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn names_of_others_are_refused() {
        for name in ["keel_1.2.efi", "linux.efi", "keel_1.2.3+x.efi", "keel_1.2.3", "keel_.efi", ""] {
            assert!(name.parse::<UkiName>().is_err(), "{name}");
        }
    }

    #[test]
    fn versions_order_as_semver_does() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("1.0.0-rc.1") < version("1.0.0"));
        assert!(version("1.9.0") < version("1.10.0"));
        assert!("1.0.0+build".parse::<Version>().is_err());
    }
}
