//! Public keys of the kinds that the specification names, in any form that is in use (section 4.2.1).

use base64::Engine as _;

use super::roles::Key;

/// What precedes the point in a P-256 SubjectPublicKeyInfo (RFC 5480): algorithm, curve, bit string's head.
const P256_SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// What precedes the key in an Ed25519 SubjectPublicKeyInfo (RFC 8410).
const ED25519_SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The algorithm in an RSA SubjectPublicKeyInfo (RFC 3279): rsaEncryption without parameters.
const RSA_ALGORITHM: [u8; 15] =
    [0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];

/// Most bytes of a signature or key in binary: RSA with 8192 bits takes 1064.
const MAX_KEY_BYTES: usize = 2048;

/// Bytes written in hexadecimal, at most those of the longest key or signature.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    if text.len() > 2 * MAX_KEY_BYTES || !text.len().is_multiple_of(2) {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    text.as_bytes().chunks(2).map(|pair| Some((digit(pair[0])? << 4 | digit(pair[1])?) as u8)).collect()
}

/// A key of a kind that is understood; equal ones are the same key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PublicKey {
    /// 32 bytes.
    Ed25519(Vec<u8>),
    /// An uncompressed point; signatures are DER.
    P256(Vec<u8>),
    /// An RSAPublicKey (RFC 8017, appendix A.1.1); signatures are PSS with SHA-256 and a salt of 32 bytes.
    RsaPss(Vec<u8>),
}

impl PublicKey {
    /// `None` for other kinds, and for what isn't a key.
    pub fn read(key: &Key) -> Option<Self> {
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
}

impl PublicKey {
    /// A key that says itself what it is: a SubjectPublicKeyInfo in PEM, of P-256 or Ed25519. `None` for any other.
    pub fn from_pem(text: &str) -> Option<Self> {
        let der = pem(text)?;
        if let Some(point) = der.strip_prefix(&P256_SPKI_HEAD) {
            return (point.len() == 65 && point[0] == 4).then(|| Self::P256(point.to_vec()));
        }
        let key = der.strip_prefix(&ED25519_SPKI_HEAD)?;
        (key.len() == 32).then(|| Self::Ed25519(key.to_vec()))
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

#[cfg(test)]
mod tests {
    use super::super::roles::KeyValue;
    use super::*;

    const RSA_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMFwwDQYJKoZIhvcNAQEBBQADSwAwSAJBAKj34GkxFhD90vcNLYLInFEX6Ppy1tPf\n9Cnzj4p4WGeKLs1Pt8QuKUpRKfFLfRYC9AIKjbJTWit+CqvjWYzvQwECAwEAAQ==\n-----END PUBLIC KEY-----\n";

    fn key(keytype: &str, scheme: &str, public: &str) -> Key {
        Key { keytype: keytype.into(), scheme: scheme.into(), keyval: KeyValue { public: public.into() } }
    }

    #[test]
    fn hexadecimal_is_read_strictly() {
        assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("+1"), None);
    }

    #[test]
    fn what_is_not_a_key_counts_for_nothing_and_never_panics() {
        for public in [
            "",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----AAAA-----END PUBLIC KEY-----",
            "zz",
            "04",
            "ü",
        ] {
            for (keytype, scheme) in [
                ("rsa", "rsassa-pss-sha256"),
                ("ecdsa", "ecdsa-sha2-nistp256"),
                ("ed25519", "ed25519"),
                ("sphincs", "new"),
            ] {
                assert_eq!(PublicKey::read(&key(keytype, scheme, public)), None, "{keytype} {public:?}");
            }
        }
        // Every truncation of a key's DER.
        let der = pem(RSA_PUBLIC).unwrap();
        assert!(rsa_public_key(&der).is_some());
        assert!((0..der.len()).all(|length| rsa_public_key(&der[..length]).is_none()));
    }
}
