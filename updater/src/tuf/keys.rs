//! Public keys and thresholds (sections 4.2.1 and 5.2.1 of the specification).
//!
//! A key's ID is a name and no more: nothing follows from its form (TAP 12). So what counts towards a threshold is the
//! key itself, however often and under whatever names it is listed.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use keel_spec::tuf::{Envelope, Key, Role, RoleKeys, Root};
use ring::{digest, signature};

use super::error::{Error, Problem};

/// What precedes the point in a P-256 SubjectPublicKeyInfo (RFC 5480): algorithm, curve, bit string's head.
const P256_SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The algorithm in an RSA SubjectPublicKeyInfo (RFC 3279): rsaEncryption without parameters.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// Most bytes of a signature or key in binary: RSA with 8192 bits takes 1064.
const MAX_KEY_BYTES: usize = 2048;

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    to_hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Lower-case hexadecimal.
pub fn to_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| char::from_digit(nibble.into(), 16))
        .collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() > 2 * MAX_KEY_BYTES || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes().chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

/// A key of a kind that is understood; equal ones are the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PublicKey {
    Ed25519(Vec<u8>),
    /// An uncompressed point.
    P256(Vec<u8>),
    /// An RSAPublicKey (RFC 8017, appendix A.1.1).
    RsaPss(Vec<u8>),
}

impl PublicKey {
    /// `None` for other kinds, and for what isn't a key.
    fn read(key: &Key) -> Option<Self> {
        let public = key.keyval.public.trim();
        match (key.keytype.as_str(), key.scheme.as_str()) {
            ("ed25519", "ed25519") => from_hex(public).filter(|key| key.len() == 32).map(Self::Ed25519),
            ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
                // PEM, and in older repositories the DER or the point itself in hexadecimal.
                let bytes = if public.starts_with('-') { pem(public)? } else { from_hex(public)? };
                let point = bytes.strip_prefix(&P256_SPKI_HEAD).unwrap_or(&bytes);
                (point.len() == 65 && point[0] == 4).then(|| Self::P256(point.to_vec()))
            }
            ("rsa", "rsassa-pss-sha256") => Some(Self::RsaPss(rsa_public_key(&pem(public)?)?.to_vec())),
            _ => None,
        }
    }

    /// RSA-PSS with a salt as long as the digest (RFC 8017, section 9.1, note 4), and from 2048 to 8192 bits.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let (algorithm, public): (&dyn signature::VerificationAlgorithm, _) = match self {
            Self::Ed25519(key) => (&signature::ED25519, key),
            Self::P256(point) => (&signature::ECDSA_P256_SHA256_ASN1, point),
            Self::RsaPss(key) => (&signature::RSA_PSS_2048_8192_SHA256, key),
        };
        algorithm.verify(public.as_slice().into(), message.into(), signature.into()).is_ok()
    }
}

/// The DER inside a PEM text with one block.
fn pem(text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    if body.len() > 3 * MAX_KEY_BYTES {
        return None;
    }
    let body: String = body.split_whitespace().collect();
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}

/// The RSAPublicKey inside a SubjectPublicKeyInfo.
fn rsa_public_key(der: &[u8]) -> Option<&[u8]> {
    let (info, rest) = der_value(der, 0x30)?;
    let (bits, after) = der_value(info.strip_prefix(&RSA_ALGORITHM)?, 0x03)?;
    // No unused bits at the end of the bit string, and nothing behind it.
    if rest.is_empty() && after.is_empty() { bits.strip_prefix(&[0]) } else { None }
}

/// The content of a DER value with this tag, and what follows it (X.690, section 8.1.3).
fn der_value(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest))?,
        0x82 => rest.split_first_chunk::<2>().map(|(&length, rest)| (u16::from_be_bytes(length).into(), rest))?,
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// Whose signatures count for a file: keys by ID, and those of them that a role has.
#[derive(Clone, Copy)]
pub struct Keyring<'a> {
    /// All keys that a root or a delegation lists.
    pub keys: &'a BTreeMap<String, Key>,
    /// Those of the role, and how many are needed.
    pub role: &'a RoleKeys,
}

impl<'a> Keyring<'a> {
    /// Of a top-level role.
    pub fn of(root: &'a Root, role: Role) -> Option<Self> {
        root.role(role).map(|keys| Self { keys: &root.keys, role: keys })
    }

    fn public_keys(&self) -> BTreeSet<PublicKey> {
        self.role.keyids.iter().filter_map(|id| self.keys.get(id).and_then(PublicKey::read)).collect()
    }

    /// Whether another keyring lacks a key that this one has: that key was taken back.
    pub fn lost_keys_to(&self, other: &Self) -> bool {
        !self.public_keys().is_subset(&other.public_keys())
    }

    /// Checks that a file is signed by a threshold of *different* keys. Signatures by others, further ones by the same
    /// key and malformed ones don't count, and don't harm.
    pub fn verify(&self, role: &str, file: &str, envelope: &Envelope) -> Result<(), Error> {
        let message = envelope.signed_bytes().map_err(|error| Error::new(file, error))?;
        let mut counted = BTreeSet::new();
        for signed in envelope.signatures.iter().filter(|signed| self.role.keyids.contains(&signed.keyid)) {
            let Some(key) = self.keys.get(&signed.keyid).and_then(PublicKey::read) else { continue };
            if counted.contains(&key) {
                continue;
            }
            if from_hex(&signed.sig).is_some_and(|signature| key.verifies(&message, &signature)) {
                counted.insert(key);
            }
        }
        let need = self.role.threshold.max(1);
        if (counted.len() as u64) < need {
            let role = role.chars().take(40).collect();
            return Err(Error::new(file, Problem::Signature { have: counted.len(), need, role }));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
