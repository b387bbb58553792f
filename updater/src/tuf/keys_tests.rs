use super::*;
use base64::Engine as _;
use keel_spec::tuf::KeyValue;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA256, RsaKeyPair};

/// Made and signed by python-tuf: RSA, ECDSA and ed25519, all three needed, with unknown fields.
const THREE_KINDS: &[u8] = include_bytes!("../../tests/data/three-kinds.root.json");
/// SubjectPublicKeyInfo of a P-256 key up to the point (RFC 5480).
const P256_SPKI_HEAD: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// For tests alone; ring can't make RSA keys.
const RSA: &str = include_str!("../../tests/data/rsa-2048.pem");
const RSA_PUBLIC: &str = include_str!("../../tests/data/rsa-2048.pub.pem");

fn key(keytype: &str, scheme: &str, public: &str) -> Key {
    Key { keytype: keytype.into(), scheme: scheme.into(), keyval: KeyValue { public: public.into() } }
}

fn verify_root(bytes: &[u8]) -> Result<(), Error> {
    let envelope = Envelope::parse(Role::Root, bytes).unwrap();
    let root: Root = envelope.read().unwrap();
    Keyring::of(&root, Role::Root).unwrap().verify("root", "root.json", &envelope)
}

#[test]
fn what_another_implementation_signed_with_three_kinds_of_keys_is_verified() {
    verify_root(THREE_KINDS).unwrap();
    let text = std::str::from_utf8(THREE_KINDS).unwrap();
    let changed = text.replace("x-note", "x-nOte");
    assert!(matches!(
        verify_root(changed.as_bytes()).unwrap_err().problem,
        Problem::Signature { have: 0, need: 3, .. }
    ));
    // Each signature counts on its own: one that is damaged leaves two.
    for at in text.match_indices("\"sig\": \"").map(|(at, found)| at + found.len() + 40) {
        let mut damaged = THREE_KINDS.to_vec();
        damaged[at] = if damaged[at] == b'0' { b'1' } else { b'0' };
        let problem = verify_root(&damaged).unwrap_err().problem;
        assert!(matches!(problem, Problem::Signature { have: 2, need: 3, .. }), "{problem:?}");
    }
}

#[test]
fn a_p256_key_in_any_dress_is_the_same_key() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let der = [P256_SPKI_HEAD.as_slice(), point].concat();
    let base64 = base64::engine::general_purpose::STANDARD.encode(&der);
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n{}\n-----END PUBLIC KEY-----\n", &base64[..64], &base64[64..]);
    let dresses = [
        key("ecdsa", "ecdsa-sha2-nistp256", &pem),
        key("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", &pem.replace('\n', "\r\n")),
        key("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256", &to_hex(point)),
        key("ecdsa", "ecdsa-sha2-nistp256", &to_hex(&der)),
    ];
    let read: BTreeSet<_> = dresses.iter().map(|key| PublicKey::read(key).unwrap()).collect();
    assert_eq!(read.len(), 1);
    let signature = pair.sign(&random, b"message").unwrap();
    assert!(verifies(read.first().unwrap(), b"message", signature.as_ref()));
    assert!(!verifies(read.first().unwrap(), b"massage", signature.as_ref()));
}

#[test]
fn rsa_keys_verify_pss_and_nothing_else() {
    let body: String = RSA.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = RsaKeyPair::from_pkcs8(&base64::engine::general_purpose::STANDARD.decode(body).unwrap()).unwrap();
    let public = PublicKey::read(&key("rsa", "rsassa-pss-sha256", RSA_PUBLIC)).unwrap();
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), b"message", &mut signature).unwrap();
    assert!(verifies(&public, b"message", &signature));
    assert!(!verifies(&public, b"massage", &signature));
    pair.sign(&ring::signature::RSA_PKCS1_SHA256, &SystemRandom::new(), b"message", &mut signature).unwrap();
    assert!(!verifies(&public, b"message", &signature));
    assert_eq!(PublicKey::read(&key("rsa", "rsa-pkcs1v15-sha256", RSA_PUBLIC)), None);
}
