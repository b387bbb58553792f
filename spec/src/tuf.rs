//! Metadata of The Update Framework (specification 1.0.33), and its canonical JSON.
//!
//! Signatures are made over the canonical form of `signed` *as it was received*, unknown fields included; so an
//! [`Envelope`] keeps it raw and roles are read out of it afterwards. No cryptography and no I/O happen here.
//! Delegations aren't read: Keel's repositories have one targets role.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the specification that is written; any 1.x is read.
pub const SPEC_VERSION: &str = "1.0.33";
/// Most signatures of one file; more are refused.
pub const MAX_SIGNATURES: usize = 64;
/// Most levels of arrays and objects; deeper ones are refused.
pub const MAX_DEPTH: usize = 32;

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

    /// Longest file of this role in bytes that is read (section 5: X, Y, Z bytes are the client's choice).
    pub fn max_bytes(self) -> u64 {
        match self {
            Self::Root => 512 << 10,
            Self::Timestamp => 16 << 10,
            Self::Snapshot => 2 << 20,
            Self::Targets => 10 << 20,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why bytes aren't metadata.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// Longer than [`Role::max_bytes`].
    #[error("is longer than {0} bytes")]
    TooLong(u64),
    /// Not JSON, or not of the form that the specification gives.
    #[error("is malformed: {0}")]
    Malformed(String),
    /// A file of another role.
    #[error("is of type {0:?}")]
    WrongType(String),
    /// A specification that isn't understood.
    #[error("follows specification {0:?}, only 1.x is understood")]
    SpecVersion(String),
    /// Nested deeper than [`MAX_DEPTH`].
    #[error("is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// Canonical JSON has no such number.
    #[error("holds a number that isn't an integer")]
    NotAnInteger,
}

/// A signed file (section 4.2.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Signatures over the canonical form of `signed`.
    pub signatures: Vec<Signature>,
    /// The role's metadata, as it was received.
    pub signed: Value,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// Whose it is.
    pub keyid: String,
    /// The signature in hexadecimal.
    pub sig: String,
}

impl Envelope {
    /// Reads a file of `role`: size, form, type and specification are checked, signatures are not.
    pub fn parse(role: Role, bytes: &[u8]) -> Result<Self, MetadataError> {
        if bytes.len() as u64 > role.max_bytes() {
            return Err(MetadataError::TooLong(role.max_bytes()));
        }
        let envelope: Self = serde_json::from_slice(bytes).map_err(malformed)?;
        if envelope.signatures.len() > MAX_SIGNATURES {
            return Err(MetadataError::Malformed(format!("more than {MAX_SIGNATURES} signatures")));
        }
        check_depth(&envelope.signed, 0)?;
        let text = |name: &str| envelope.signed.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("_type") != role.name() {
            return Err(MetadataError::WrongType(text("_type").chars().take(40).collect()));
        }
        if !text("spec_version").starts_with("1.") {
            return Err(MetadataError::SpecVersion(text("spec_version").chars().take(40).collect()));
        }
        Ok(envelope)
    }

    /// What signatures are made over.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, MetadataError> {
        canonical(&self.signed)
    }

    /// The role's metadata.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, MetadataError> {
        T::deserialize(&self.signed).map_err(malformed)
    }
}

fn malformed(error: serde_json::Error) -> MetadataError {
    MetadataError::Malformed(error.to_string().chars().take(200).collect())
}

fn check_depth(value: &Value, depth: usize) -> Result<(), MetadataError> {
    if depth > MAX_DEPTH {
        return Err(MetadataError::TooDeep);
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, depth + 1)),
        Value::Object(fields) => fields.values().try_for_each(|item| check_depth(item, depth + 1)),
        _ => Ok(()),
    }
}

/// A point in time, seconds since the Unix epoch; written `2026-01-02T03:04:05Z` (section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub u64);

/// Why text isn't a time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: want YYYY-MM-DDTHH:MM:SSZ, from 1970 to 9999")]
pub struct InvalidTime(pub String);

const DAY_S: u64 = 86_400;

/// Days of the years before `year` since 1970, by the Gregorian calendar.
fn days_before(year: u64) -> u64 {
    let leap = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap(year - 1) - leap(1969)
}

fn month_days(year: u64) -> [u64; 12] {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

impl Time {
    /// Year, month, day, hour, minute, second in UTC.
    fn civil(self) -> (u64, u64, u64, u64, u64, u64) {
        let (days, seconds) = (self.0 / DAY_S, self.0 % DAY_S);
        // The estimate is never above the true year + 1 nor below it - 1, so that both loops end at once.
        let mut year = (1970 + days / 365).min(9999);
        while year > 1970 && days_before(year) > days {
            year -= 1;
        }
        let mut left = days - days_before(year);
        let mut month = 1;
        for length in month_days(year) {
            if left < length || month == 12 {
                break;
            }
            left -= length;
            month += 1;
        }
        (year, month, left + 1, seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    /// For people: `2026-01-02 03:04 UTC`.
    pub fn for_people(self) -> String {
        let (year, month, day, hour, minute, _) = self.civil();
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, hour, minute, second) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl FromStr for Time {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let parse = || {
            let shape = |(index, byte): (usize, u8)| match index {
                4 | 7 => byte == b'-',
                10 => byte == b'T',
                13 | 16 => byte == b':',
                19 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            };
            if text.len() != 20 || !text.bytes().enumerate().all(shape) {
                return None;
            }
            let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
            let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
            let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
            if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
                return None;
            }
            let lengths = month_days(year);
            if day < 1 || day > lengths[month as usize - 1] {
                return None;
            }
            let days = days_before(year) + lengths[..month as usize - 1].iter().sum::<u64>() + day - 1;
            Some(Self(days * DAY_S + hour * 3600 + minute * 60 + second))
        };
        parse().ok_or_else(|| InvalidTime(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for Time {
    type Error = InvalidTime;

    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> String {
        time.to_string()
    }
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
    /// Whose signatures count for which role.
    pub roles: BTreeMap<Role, RoleKeys>,
}

/// A public key (section 4.2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// `ed25519`, `ecdsa` or `rsa`.
    pub keytype: String,
    /// How signatures are made.
    pub scheme: String,
    /// The key itself.
    pub keyval: KeyValue,
}

/// The key itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyValue {
    /// Hexadecimal for ed25519, PEM for the others.
    pub public: String,
}

/// Whose signatures count, and how many are needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// IDs of the keys.
    pub keyids: Vec<String>,
    /// Signatures by different keys that are needed, at least 1.
    pub threshold: u32,
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
    /// `targets.json`.
    pub meta: BTreeMap<String, MetaFile>,
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

/// Targets metadata (section 4.5).
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
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFile {
    /// Its length in bytes.
    pub length: u64,
    /// Its digests by algorithm, in hexadecimal; `sha256` is the one that Keel checks.
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

/// Canonical JSON as The Update Framework means it (<http://gibson042.github.io/canonicaljson-spec/> differs; this is
/// OLPC's: keys sorted by code point, no white space, only `"` and `\` escaped, integers only).
pub fn canonical(value: &Value) -> Result<Vec<u8>, MetadataError> {
    let mut out = Vec::new();
    write_canonical(value, &mut out, 0)?;
    Ok(out)
}

fn write_canonical(value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), MetadataError> {
    if depth > MAX_DEPTH {
        return Err(MetadataError::TooDeep);
    }
    match value {
        Value::Null => out.extend(b"null"),
        Value::Bool(true) => out.extend(b"true"),
        Value::Bool(false) => out.extend(b"false"),
        Value::Number(number) if number.is_i64() || number.is_u64() => out.extend(number.to_string().as_bytes()),
        Value::Number(_) => return Err(MetadataError::NotAnInteger),
        Value::String(text) => write_string(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_canonical(item, out, depth + 1)?;
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            // Sorted here and not by the map, whose order is a feature flag that any crate may turn.
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (index, (name, item)) in fields.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_string(name, out);
                out.push(b':');
                write_canonical(item, out, depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
#[path = "tuf_tests.rs"]
mod tests;
