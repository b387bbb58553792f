//! The policy of signatures: what cosign made is looked for at a pull and checked again before a container is made.

mod common;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::fake::{Asked, Held, Reply, Server};
use common::{archive_of_file, assert_nothing_left, import, noise};
use keel_spec::tuf::PublicKey;
use keel_store::{Digest, Error, ImageId, Options, Pull, Reference, Store};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

enum Signer {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    fn p256() -> Self {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        Self::P256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random).unwrap())
    }

    fn ed25519() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Ed25519(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn public(&self) -> PublicKey {
        let (head, key): (&[u8], &[u8]) = match self {
            Self::P256(pair) => (
                &[
                    0x30, 0x59, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce,
                    0x3d, 3, 1, 7, 3, 0x42, 0,
                ],
                pair.public_key().as_ref(),
            ),
            Self::Ed25519(pair) => {
                (&[0x30, 0x2a, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 3, 0x21, 0], pair.public_key().as_ref())
            }
        };
        let body = STANDARD.encode([head, key].concat());
        PublicKey::from_pem(&format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")).unwrap()
    }

    fn sign(&self, payload: &[u8]) -> String {
        STANDARD.encode(match self {
            Self::P256(pair) => pair.sign(&SystemRandom::new(), payload).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(payload).as_ref().to_vec(),
        })
    }
}

fn payload(kind: &str, digest: &Digest) -> Vec<u8> {
    json!({
        "critical": {
            "identity": {"docker-reference": "registry.example/a/b"},
            "image": {"docker-manifest-digest": digest}, "type": kind,
        },
        "optional": {"who": "me"},
    })
    .to_string()
    .into_bytes()
}

const KIND: &str = "cosign container image signature";

/// What `cosign sign` leaves in a repository: payloads with their signatures.
#[derive(Clone, Default)]
struct Signatures(Vec<(Vec<u8>, String)>);

impl Signatures {
    fn by(signer: &Signer, digest: &Digest) -> Self {
        let payload = payload(KIND, digest);
        let signature = signer.sign(&payload);
        Self(vec![(payload, signature)])
    }

    fn manifest(&self) -> Vec<u8> {
        let layer = |(payload, signature): &(Vec<u8>, String)| {
            json!({
                "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
                "digest": Digest::of(payload), "size": payload.len(),
                "annotations": {"dev.cosignproject.cosign/signature": signature},
            })
        };
        let layers: Vec<Value> = self.0.iter().map(layer).collect();
        let config = json!({"digest": Digest::of(b"{}"), "size": 2});
        json!({"schemaVersion": 2, "config": config, "layers": layers}).to_string().into_bytes()
    }

    /// A registry that has an image, perhaps in an index, and these beside it.
    fn serve(self, held: Held, index: Option<Vec<u8>>) -> Server {
        let manifest = Digest::of(&held.manifest).to_string();
        let top = Digest::of(index.as_ref().unwrap_or(&held.manifest));
        let tag = format!("/manifests/sha256-{}.sig", top.hex());
        Server::start(move |asked: &Asked, _| {
            if asked.path.ends_with(&tag) && !self.0.is_empty() {
                return Reply::ok(self.manifest());
            }
            if asked.path.ends_with(".sig") {
                return Reply::status(404);
            }
            if let Some((payload, _)) = self.0.iter().find(|(p, _)| asked.path.ends_with(&Digest::of(p).to_string())) {
                return Reply::ok(payload.clone());
            }
            match &index {
                Some(index) if asked.path.contains("/manifests/") && !asked.path.ends_with(&manifest) => {
                    Reply::ok(index.clone())
                }
                _ => held.answer(asked),
            }
        })
    }
}

fn held() -> Held {
    Held::new(archive_of_file("file", &noise(1000)))
}

fn index(held: &Held) -> Vec<u8> {
    let platform = json!({"os": "linux", "architecture": "amd64"});
    let entry = json!({"digest": Digest::of(&held.manifest), "size": held.manifest.len(), "platform": platform});
    json!({"schemaVersion": 2, "manifests": [entry]}).to_string().into_bytes()
}

fn open(folder: &std::path::Path, server: &Server, keys: &[&Signer]) -> Store {
    let options = Options {
        insecure_registries: vec![server.address.clone()],
        signature_keys: keys.iter().map(|signer| signer.public()).collect(),
        ..Options::default()
    };
    Store::open(&folder.join("store"), options).unwrap()
}

fn pull(store: &Store, server: &Server) -> Result<ImageId, Error> {
    let reference: Reference = format!("{}/a/b:1", server.address).parse().unwrap();
    store.pull(&reference, &Pull::default(), &mut |_| ())
}

#[test]
fn signed_images_are_pulled_and_run_by_any_of_the_keys() {
    let (one, two, other) = (Signer::p256(), Signer::ed25519(), Signer::p256());
    for signer in [&one, &two] {
        for in_index in [false, true] {
            let held = held();
            let index = in_index.then(|| index(&held));
            let top = Digest::of(index.as_ref().unwrap_or(&held.manifest));
            // One by somebody else comes first.
            let both = [Signatures::by(&other, &top).0, Signatures::by(signer, &top).0].concat();
            let server = Signatures(both).serve(held, index);
            let folder = tempfile::tempdir().unwrap();
            let store = open(folder.path(), &server, &[&one, &two]);
            let id = pull(&store, &server).unwrap();
            store.image_to_run(&id.to_string()).unwrap();
            // The keys of then count, and what was pulled is still known after a restart.
            drop(store);
            open(folder.path(), &server, &[signer]).image_to_run(&id.to_string()).unwrap();
            let refused = open(folder.path(), &server, &[&other]).image_to_run(&id.to_string());
            assert!(refused.is_err(), "in an index: {in_index}");
        }
    }
}

#[test]
fn what_is_not_signed_by_a_key_is_refused_and_nothing_is_left() {
    let (ours, theirs) = (Signer::p256(), Signer::ed25519());
    let held = held();
    let digest = Digest::of(&held.manifest);
    let with = |payload: Vec<u8>, signature: String| Signatures(vec![(payload, signature)]);
    let good = payload(KIND, &digest);
    let of_other = payload(KIND, &Digest::of(b"other"));
    let of_kind = payload("atomic container signature", &digest);
    for (signatures, word) in [
        (Signatures::default(), "has no signature"),
        (Signatures::by(&theirs, &digest), "none of its signatures"),
        (with(of_other.clone(), ours.sign(&of_other)), "none of its signatures"),
        (with(of_kind.clone(), ours.sign(&of_kind)), "none of its signatures"),
        (with(good.clone(), ours.sign(b"else")), "none of its signatures"),
        (with(good.clone(), "no base64!".into()), "none of its signatures"),
        (with(b"no json".to_vec(), ours.sign(b"no json")), "none of its signatures"),
    ] {
        let server = signatures.serve(held.clone(), None);
        let folder = tempfile::tempdir().unwrap();
        let store = open(folder.path(), &server, &[&ours]);
        let error = pull(&store, &server).unwrap_err();
        assert!(matches!(&error, Error::Unsigned { .. }) && error.to_string().contains(word), "{error}");
        assert_eq!(server.count(&held.layer_digest()), 0, "no layer is fetched");
        assert_nothing_left(folder.path());
    }
}

#[test]
fn images_of_elsewhere_and_forged_records_do_not_run() {
    let signer = Signer::p256();
    let held = held();
    let server = Signatures::by(&signer, &Digest::of(&held.manifest)).serve(held, None);
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), &server, &[&signer]);
    let signed = pull(&store, &server).unwrap();
    let imported = import(&store, &mut archive_of_file("x", b"x").as_slice(), "mine:1").unwrap();
    let error = store.image_to_run("mine:1").unwrap_err();
    assert!(error.to_string().contains("require_signature") && error.to_string().contains("pull it again"), "{error}");
    drop(store);
    // Someone who writes to the disk gives the other image the good signature.
    let path = folder.path().join("store/images.json");
    let mut records: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let images = &mut records["images"];
    let (good, manifest) =
        (images[signed.to_string()]["signed"].clone(), images[signed.to_string()]["manifest"].clone());
    assert!(good.is_object());
    images[imported.to_string()]["signed"] = good;
    images[imported.to_string()]["manifest"] = manifest;
    std::fs::write(&path, records.to_string()).unwrap();
    let store = open(folder.path(), &server, &[&signer]);
    store.image_to_run(&signed.to_string()).unwrap();
    let error = store.image_to_run(&imported.to_string()).unwrap_err();
    assert!(error.to_string().contains("another image"), "{error}");
}
