//! Public keys and thresholds (sections 4.2.1 and 5.2.1 of the specification).
//!
//! A key's ID is a name and no more: nothing follows from its form (TAP 12). So what counts towards a threshold is the
//! key itself, however often and under whatever names it is listed.

use std::collections::{BTreeMap, BTreeSet};

use keel_spec::tuf::public_key::{PublicKey, from_hex};
use keel_spec::tuf::{Envelope, Key, Role, RoleKeys, Root};
use ring::{digest, signature};

use super::error::{Error, Problem};

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

/// RSA keys of 2048 to 8192 bits, which sign with a salt as long as the digest (RFC 8017, section 9.1, note 4).
fn verifies(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    let (algorithm, public): (&dyn signature::VerificationAlgorithm, _) = match key {
        PublicKey::Ed25519(key) => (&signature::ED25519, key),
        PublicKey::P256(point) => (&signature::ECDSA_P256_SHA256_ASN1, point),
        PublicKey::RsaPss(key) => (&signature::RSA_PSS_2048_8192_SHA256, key),
    };
    algorithm.verify(public.as_slice().into(), message.into(), signature.into()).is_ok()
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
            if from_hex(&signed.sig).is_some_and(|signature| verifies(&key, &message, &signature)) {
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
