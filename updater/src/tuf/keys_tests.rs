use super::*;
use keel_spec::tuf::KeyValue;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PSS_SHA256, RsaKeyPair};

/// Made and signed by python-tuf: RSA, ECDSA and ed25519, all three needed, with unknown fields.
const THREE_KINDS: &[u8] = include_bytes!("../../tests/data/three-kinds.root.json");
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
fn hexadecimal_is_read_strictly() {
    assert_eq!(from_hex("00fF"), Some(vec![0, 255]));
    assert_eq!(from_hex("0"), None);
    assert_eq!(from_hex("+1"), None);
    assert_eq!(to_hex(&[0, 255]), "00ff");
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
    let der = [&P256_SPKI_HEAD, point].concat();
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
    assert!(read.first().unwrap().verifies(b"message", signature.as_ref()));
    assert!(!read.first().unwrap().verifies(b"massage", signature.as_ref()));
}

#[test]
fn rsa_keys_verify_pss_and_nothing_else() {
    let body: String = RSA.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = RsaKeyPair::from_pkcs8(&base64::engine::general_purpose::STANDARD.decode(body).unwrap()).unwrap();
    let public = PublicKey::read(&key("rsa", "rsassa-pss-sha256", RSA_PUBLIC)).unwrap();
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PSS_SHA256, &SystemRandom::new(), b"message", &mut signature).unwrap();
    assert!(public.verifies(b"message", &signature));
    assert!(!public.verifies(b"massage", &signature));
    pair.sign(&ring::signature::RSA_PKCS1_SHA256, &SystemRandom::new(), b"message", &mut signature).unwrap();
    assert!(!public.verifies(b"message", &signature));
    assert_eq!(PublicKey::read(&key("rsa", "rsa-pkcs1v15-sha256", RSA_PUBLIC)), None);
}

#[test]
fn what_is_not_a_key_counts_for_nothing_and_never_panics() {
    for public in
        ["", "-----BEGIN PUBLIC KEY-----", "-----BEGIN PUBLIC KEY-----AAAA-----END PUBLIC KEY-----", "zz", "04", "ü"]
    {
        for (keytype, scheme) in
            [("rsa", "rsassa-pss-sha256"), ("ecdsa", "ecdsa-sha2-nistp256"), ("ed25519", "ed25519"), ("sphincs", "new")]
        {
            assert_eq!(PublicKey::read(&key(keytype, scheme, public)), None, "{keytype} {public:?}");
        }
    }
    // Every truncation of a key's DER.
    let der = pem(RSA_PUBLIC).unwrap();
    assert!(rsa_public_key(&der).is_some());
    assert!((0..der.len()).all(|length| rsa_public_key(&der[..length]).is_none()));
}
