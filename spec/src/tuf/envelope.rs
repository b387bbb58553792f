//! A signed file as it was received (section 4.2.1).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::canonical::canonical;
use super::roles::{Metadata, Role};

/// Most signatures of one file; more are refused.
pub const MAX_SIGNATURES: usize = 64;
/// Most levels of arrays and objects; deeper ones are refused.
pub const MAX_DEPTH: usize = 32;
/// Most values of one file, about: an object takes some 600 bytes of memory, however short its text is.
const MAX_VALUES: usize = 100_000;

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
    /// More values than any repository has use for.
    #[error("holds more than {MAX_VALUES} values")]
    TooMany,
    /// Canonical JSON has no such number.
    #[error("holds a number that isn't an integer")]
    NotAnInteger,
}

/// A signed file.
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
    /// Reads a file of `role` ([`Role::Targets`] for delegated roles, too): size, form, type and specification are
    /// checked, signatures are not.
    pub fn parse(role: Role, bytes: &[u8]) -> Result<Self, MetadataError> {
        if bytes.len() as u64 > role.max_bytes() {
            return Err(MetadataError::TooLong(role.max_bytes()));
        }
        // Before it takes memory: commas and brackets bound the number of values from above.
        if bytes.iter().filter(|byte| matches!(byte, b',' | b'[' | b'{')).count() > MAX_VALUES {
            return Err(MetadataError::TooMany);
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
        if !is_understood(text("spec_version")) {
            return Err(MetadataError::SpecVersion(text("spec_version").chars().take(40).collect()));
        }
        Ok(envelope)
    }

    /// What signatures are made over.
    pub fn signed_bytes(&self) -> Result<Vec<u8>, MetadataError> {
        canonical(&self.signed)
    }

    /// The role's metadata, checked for what its types don't say.
    pub fn read<T: Metadata>(&self) -> Result<T, MetadataError> {
        let metadata = T::deserialize(&self.signed).map_err(malformed)?;
        metadata.check().map_err(MetadataError::Malformed)?;
        Ok(metadata)
    }
}

/// Section 4.2.1: another major version is another format; minor ones are understood. Older files leave the patch out.
fn is_understood(spec_version: &str) -> bool {
    let mut parts = spec_version.split('.');
    let number = |part: &str| !part.is_empty() && part.len() <= 9 && part.bytes().all(|byte| byte.is_ascii_digit());
    parts.next() == Some("1") && (1..=2).contains(&parts.clone().count()) && parts.all(number)
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
