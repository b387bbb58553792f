//! What the roles say (sections 4.3 to 4.6).

use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::delegation::Delegations;
use super::time::Time;

/// Version of the specification that is written; any 1.x is read.
pub const SPEC_VERSION: &str = "1.0.33";

/// The four top-level roles (section 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Says whose signatures count.
    Root,
    /// Says which snapshot is current.
    Timestamp,
    /// Says which versions belong together.
    Snapshot,
    /// Says which files there are.
    Targets,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::Timestamp, Self::Snapshot, Self::Targets];

    /// Name, as in `_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Timestamp => "timestamp",
            Self::Snapshot => "snapshot",
            Self::Targets => "targets",
        }
    }

    /// Name of the file without a version: `snapshot.json`.
    pub fn file_name(self) -> String {
        format!("{}.json", self.name())
    }

    /// Longest file of this role in bytes that is read (section 5: W, X, Y, Z bytes are the client's choice).
    pub fn max_bytes(self) -> u64 {
        match self {
            Self::Root => 512 << 10,
            Self::Timestamp => 16 << 10,
            Self::Snapshot => 2 << 20,
            Self::Targets => 5 << 20,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Metadata of a role.
pub trait Metadata: DeserializeOwned {
    /// What the types don't say, but the specification does; what is wrong otherwise.
    fn check(&self) -> Result<(), String>;
}

/// Root metadata (section 4.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// `root`.
    #[serde(rename = "_type")]
    pub kind: Role,
    /// Version of the specification.
    pub spec_version: String,
    /// Counts up by one.
    pub version: u64,
    /// Not to be trusted after.
    pub expires: Time,
    /// Whether file names carry versions and digests.
    #[serde(default)]
    pub consistent_snapshot: bool,
    /// Keys by their IDs.
    pub keys: BTreeMap<String, Key>,
    /// Whose signatures count for which role; others than the four ([`Role::name`]) are ignored.
    pub roles: BTreeMap<String, RoleKeys>,
}

impl Root {
    /// Whose signatures count for a role.
    pub fn role(&self, role: Role) -> Option<&RoleKeys> {
        self.roles.get(role.name())
    }
}

impl Metadata for Root {
    fn check(&self) -> Result<(), String> {
        counts("version", self.version)?;
        for role in Role::ALL {
            self.role(role).ok_or_else(|| format!("no keys for {role}"))?;
        }
        self.roles.iter().try_for_each(|(name, keys)| keys.check(name))
    }
}

/// A public key (section 4.2.1). One of a kind that isn't known, whatever its form, is no reason to refuse its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// `ed25519`, `ecdsa` or `rsa`.
    #[serde(default, deserialize_with = "text")]
    pub keytype: String,
    /// How signatures are made.
    #[serde(default, deserialize_with = "text")]
    pub scheme: String,
    /// The key itself.
    #[serde(default, deserialize_with = "key_value")]
    pub keyval: KeyValue,
}

/// The key itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct KeyValue {
    /// Hexadecimal for ed25519, PEM for the others; empty for what isn't known.
    pub public: String,
}

fn text<'a, D: Deserializer<'a>>(from: D) -> Result<String, D::Error> {
    Ok(Value::deserialize(from)?.as_str().unwrap_or_default().to_owned())
}

fn key_value<'a, D: Deserializer<'a>>(from: D) -> Result<KeyValue, D::Error> {
    let value = Value::deserialize(from)?;
    Ok(KeyValue { public: value.get("public").and_then(Value::as_str).unwrap_or_default().to_owned() })
}

/// Whose signatures count, and how many are needed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// IDs of the keys.
    pub keyids: Vec<String>,
    /// Signatures by different keys that are needed, at least 1.
    pub threshold: u64,
}

impl RoleKeys {
    pub(super) fn check(&self, role: &str) -> Result<(), String> {
        match self.threshold {
            0 => Err(format!("the threshold of {role:?} is 0")),
            _ => Ok(()),
        }
    }
}

/// Timestamp metadata (section 4.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// `timestamp`.
    #[serde(rename = "_type")]
    pub kind: Role,
    /// Version of the specification.
    pub spec_version: String,
    /// Never goes down.
    pub version: u64,
    /// Not to be trusted after.
    pub expires: Time,
    /// `snapshot.json` alone.
    pub meta: BTreeMap<String, MetaFile>,
}

impl Metadata for Timestamp {
    fn check(&self) -> Result<(), String> {
        all_count(self.version, &self.meta)
    }
}

/// Snapshot metadata (section 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `snapshot`.
    #[serde(rename = "_type")]
    pub kind: Role,
    /// Version of the specification.
    pub spec_version: String,
    /// Never goes down.
    pub version: u64,
    /// Not to be trusted after.
    pub expires: Time,
    /// `targets.json`, and a file for each delegated role.
    pub meta: BTreeMap<String, MetaFile>,
}

impl Metadata for Snapshot {
    fn check(&self) -> Result<(), String> {
        all_count(self.version, &self.meta)
    }
}

/// What is known of a metadata file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaFile {
    /// Its version.
    pub version: u64,
    /// Its length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
    /// Its digests by algorithm, in hexadecimal; empty: not given.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hashes: BTreeMap<String, String>,
}

/// Targets metadata, of the top-level role or of a delegated one (section 4.5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// `targets`.
    #[serde(rename = "_type")]
    pub kind: Role,
    /// Version of the specification.
    pub spec_version: String,
    /// Never goes down.
    pub version: u64,
    /// Not to be trusted after.
    pub expires: Time,
    /// Files by name.
    pub targets: BTreeMap<String, TargetFile>,
    /// Who else is trusted with files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegations: Option<Delegations>,
}

impl Metadata for Targets {
    fn check(&self) -> Result<(), String> {
        counts("version", self.version)?;
        self.delegations.iter().try_for_each(Delegations::check)
    }
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFile {
    /// Its length in bytes.
    pub length: u64,
    /// Its digests by algorithm, in hexadecimal; `sha256` is the one that Keel's own files carry.
    pub hashes: BTreeMap<String, String>,
    /// Whatever the application wants to say of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Value>,
}

impl TargetFile {
    /// Its SHA-256 in lower-case hexadecimal, if there is one of the right form.
    pub fn sha256(&self) -> Option<&str> {
        self.hashes.get("sha256").map(String::as_str).filter(|hex| is_sha256_hex(hex))
    }
}

/// Whether text is a SHA-256 in lower-case hexadecimal; such text is safe as part of a file name.
pub fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The version of a file that lists others, and those of the files in it, are counted from 1 (section 4.2.1).
fn all_count(version: u64, listed: &BTreeMap<String, MetaFile>) -> Result<(), String> {
    counts("version", version)?;
    listed.iter().try_for_each(|(name, file)| counts(name, file.version))
}

/// Versions are counted from 1 (section 4.2.1).
fn counts(what: &str, version: u64) -> Result<(), String> {
    match version {
        0 => Err(format!("the version of {what:?} is 0")),
        _ => Ok(()),
    }
}
