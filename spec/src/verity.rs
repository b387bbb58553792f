//! The geometry of a dm-verity hash tree (kernel: `Documentation/admin-guide/device-mapper/verity.rst`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bytes of a data block and of a hash block.
pub const BLOCK_BYTES: usize = 4096;

/// Root of a hash tree: SHA-256, written in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootHash([u8; 32]);

/// Why text isn't a root hash.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a root hash: want 64 hexadecimal digits")]
pub struct InvalidRootHash(pub String);

impl RootHash {
    /// From the hash itself.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash itself.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for RootHash {
    type Err = InvalidRootHash;

    fn from_str(text: &str) -> Result<Self, InvalidRootHash> {
        let refuse = || InvalidRootHash(text.chars().take(80).collect());
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(refuse());
        }
        let mut bytes = [0; 32];
        for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| refuse())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| refuse())?;
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for RootHash {
    type Error = InvalidRootHash;

    fn try_from(text: String) -> Result<Self, InvalidRootHash> {
        text.parse()
    }
}

impl From<RootHash> for String {
    fn from(hash: RootHash) -> String {
        hash.to_string()
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootHash({self})")
    }
}
