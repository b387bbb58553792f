//! Signatures of images as cosign makes them (sigstore's "simple signing": cosign, `specs/SIGNATURE_SPEC.md`): a payload
//! that names the digest of a manifest or index, signed, kept in the image's own repository under the tag
//! `sha256-<digest>.sig`.
//!
//! What was checked at the pull is kept, and checked again whenever a container is to be made: with the keys that are in
//! force then, from the signature down to the image's config, nothing taken on trust from the disk.

use base64::Engine as _;
use keel_spec::tuf::PublicKey;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::model::{MAX_MANIFEST_BYTES, Manifest};
use crate::reference::Reference;
use crate::store::Store;

use super::client::Registry;

/// Annotation of a layer of the signatures' manifest: the signature of that layer, base64.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// What a payload says it is.
const KIND: &str = "cosign container image signature";
/// Longest payload.
const MAX_PAYLOAD_BYTES: u64 = 64 << 10;
/// Most signatures of one image that are looked at.
const MAX_SIGNATURES: usize = 64;

/// A signature that was found good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What was signed, to the byte.
    payload: String,
    /// The signature, base64.
    signature: String,
    /// The index that was signed, where the image is one of several; kept as a blob.
    #[serde(default)]
    pub index: Option<Digest>,
}

/// What a payload says; other fields are the signers' own.
#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Named,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Named {
    #[serde(rename = "docker-manifest-digest")]
    digest: Digest,
}

fn verifies(key: &PublicKey, payload: &[u8], signature: &[u8]) -> bool {
    match key {
        PublicKey::P256(point) => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(payload, signature).is_ok()
        }
        PublicKey::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(payload, signature).is_ok(),
        PublicKey::RsaPss(_) => false,
    }
}

impl Signed {
    /// The digest that it is good for, if one of the keys made it.
    fn digest(&self, keys: &[PublicKey]) -> Option<Digest> {
        let signature = base64::engine::general_purpose::STANDARD.decode(self.signature.trim()).ok()?;
        if !keys.iter().any(|key| verifies(key, self.payload.as_bytes(), &signature)) {
            return None;
        }
        // Only now is it anybody's word.
        let payload: Payload = serde_json::from_str(&self.payload).ok()?;
        (payload.critical.kind == KIND).then_some(payload.critical.image.digest)
    }
}

/// Looks for a good signature of what a name stands for.
pub fn fetch(
    registry: &Registry<'_>,
    reference: &Reference,
    top: &Digest,
    keys: &[PublicKey],
) -> Result<Signed, Error> {
    let unsigned = |reason: String| Error::Unsigned { what: reference.to_string(), reason };
    let tag = format!("sha256-{}.sig", top.hex());
    let bytes = match registry.manifest(&tag, None) {
        Ok((_, bytes, _)) => bytes,
        Err(Error::NotInRegistry { .. }) => {
            return Err(unsigned(format!("{} has no signature of {top} (tag {tag})", registry.host())));
        }
        Err(error) => return Err(error),
    };
    let Manifest::Image(manifest) = Manifest::parse(&format!("signatures of {reference}"), &bytes)? else {
        return Err(unsigned(format!("tag {tag} holds no signatures")));
    };
    for layer in manifest.layers.iter().take(MAX_SIGNATURES) {
        let Some(signature) = layer.annotations.get(ANNOTATION).filter(|_| layer.size <= MAX_PAYLOAD_BYTES) else {
            continue;
        };
        let payload = registry.small_blob(&layer.digest, MAX_PAYLOAD_BYTES)?;
        let Ok(payload) = String::from_utf8(payload) else { continue };
        let signed = Signed { payload, signature: signature.clone(), index: None };
        if signed.digest(keys) == Some(*top) {
            return Ok(signed);
        }
    }
    Err(unsigned(format!("none of its signatures is of {top} and by a key of the machine config")))
}

/// Checks an image that is here, from its signature down to its config.
pub fn check(store: &Store, id: &ImageId) -> Result<(), Error> {
    let unsigned = |reason: &str| Error::Unsigned { what: format!("image {id}"), reason: reason.into() };
    let record = store.records().images().get(id).cloned().unwrap_or_default();
    let signed = record.signed.ok_or_else(|| unsigned("it was not pulled with a signature; pull it again"))?;
    let top = signed.digest(&store.options.signature_keys);
    let top = top.ok_or_else(|| unsigned("its signature is by no key of the machine config; pull it again"))?;
    let manifest = record.manifest.ok_or_else(|| unsigned("its manifest isn't known"))?;
    if manifest != top {
        let index = signed.index.filter(|index| *index == top);
        let index = index.ok_or_else(|| unsigned("its signature is of another image"))?;
        let lists = match Manifest::parse("the signed index", &store.blob(&index, MAX_MANIFEST_BYTES)?)? {
            Manifest::Index(entries) => entries.iter().any(|entry| entry.digest == manifest),
            Manifest::Image(_) => false,
        };
        if !lists {
            return Err(unsigned("the signed index doesn't list it"));
        }
    }
    match Manifest::parse("the signed manifest", &store.blob(&manifest, MAX_MANIFEST_BYTES)?)? {
        Manifest::Image(manifest) if manifest.config.digest == *id => Ok(()),
        _ => Err(unsigned("the signed manifest is of another image")),
    }
}
