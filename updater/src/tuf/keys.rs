//! Public keys and thresholds (sections 4.2.1 and 5.2.1 of the specification).

use std::collections::BTreeSet;

use base64::Engine as _;
use keel_spec::tuf::{Envelope, Key, Role, Root, canonical};
use ring::{digest, signature};
use serde_json::Value;

use super::error::{Error, Problem};

/// What precedes the point in a P-256 SubjectPublicKeyInfo (RFC 5480): algorithm, curve, bit string's head.
const P256_SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// Most bytes of a signature or key in binary.
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

/// The ID of a key: SHA-256 of its canonical form, unknown fields included.
pub fn key_id(key: &Value) -> Option<String> {
    canonical(key).ok().map(|bytes| sha256_hex(&bytes))
}

/// Checks that every key of a root has the ID that it is listed under, so that one key can't count twice.
pub fn check_key_ids(file: &str, envelope: &Envelope) -> Result<(), Error> {
    let keys = envelope.signed.get("keys").and_then(Value::as_object);
    for (id, key) in keys.into_iter().flatten() {
        if key_id(key).as_deref() != Some(id) {
            return Err(Error::new(file, Problem::KeyId(id.chars().take(64).collect())));
        }
    }
    Ok(())
}

fn verifies(key: &Key, message: &[u8], signature: &[u8]) -> bool {
    let check = |algorithm: &'static dyn signature::VerificationAlgorithm, public: &[u8]| {
        signature::UnparsedPublicKey::new(algorithm, public).verify(message, signature).is_ok()
    };
    match (key.keytype.as_str(), key.scheme.as_str()) {
        ("ed25519", "ed25519") => {
            from_hex(&key.keyval.public).is_some_and(|public| check(&signature::ED25519, &public))
        }
        ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => {
            let der = pem(&key.keyval.public);
            der.as_deref()
                .and_then(|der| der.strip_prefix(&P256_SPKI_HEAD))
                .is_some_and(|point| check(&signature::ECDSA_P256_SHA256_ASN1, point))
        }
        _ => false,
    }
}

/// The DER inside a PEM text with one block.
fn pem(text: &str) -> Option<Vec<u8>> {
    let body = text.trim().strip_prefix("-----BEGIN PUBLIC KEY-----")?.strip_suffix("-----END PUBLIC KEY-----")?;
    let body: String = body.split_whitespace().collect();
    if body.len() > 2 * MAX_KEY_BYTES {
        return None;
    }
    base64::engine::general_purpose::STANDARD.decode(body).ok()
}

/// Checks that a file is signed by a threshold of *different* keys of `role` as `root` lists them. Signatures by
/// others, second ones by the same key and malformed ones don't count, and don't harm.
pub fn verify(root: &Root, role: Role, file: &str, envelope: &Envelope) -> Result<(), Error> {
    let keys = root.roles.get(&role).ok_or_else(|| Error::new(file, Problem::NoRole(role.to_string())))?;
    let message = envelope.signed_bytes().map_err(|error| Error::new(file, error))?;
    let mut counted = BTreeSet::new();
    for signed in &envelope.signatures {
        if !keys.keyids.contains(&signed.keyid) {
            continue;
        }
        // By the key itself and not by its ID: the same key in two dresses is still one.
        let Some(key) = root.keys.get(&signed.keyid) else { continue };
        if counted.contains(&key.keyval) {
            continue;
        }
        if from_hex(&signed.sig).is_some_and(|signature| verifies(key, &message, &signature)) {
            counted.insert(&key.keyval);
        }
    }
    if counted.len() < keys.threshold.max(1) as usize {
        let problem = Problem::Signature { have: counted.len(), need: keys.threshold.max(1), role: role.to_string() };
        return Err(Error::new(file, problem));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("+1"), None);
        assert_eq!(to_hex(&[0, 255]), "00ff");
    }
}
