//! Role keys, and the root that names them.
//!
//! One ed25519 key for each role, PKCS #8 in PEM, `tuf-<role>.pem`, readable by their owner alone; and `root.json`,
//! the root metadata that a release carries. A key that is there is never replaced.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use base64::Engine as _;
use keel_spec::tuf::{self, Envelope, Key, KeyValue, Role, RoleKeys, Root, Signature, Time};
use ring::digest;
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use serde::Serialize;

use super::files;

const ROOT_JSON: &str = "root.json";
const ROOT_VALID_S: u64 = 10 * 365 * 86_400;
const MAX_KEY_FILE_BYTES: u64 = 4096;
const PEM_HEAD: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_TAIL: &str = "-----END PRIVATE KEY-----";

fn key_file(role: Role) -> String {
    format!("tuf-{role}.pem")
}

/// Makes the keys and the root that are absent; returns their file names.
pub fn ensure(folder: &Path) -> Result<Vec<String>> {
    std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let mut made = Vec::new();
    for role in Role::ALL {
        let path = folder.join(key_file(role));
        if path.exists() {
            continue;
        }
        // A new key beside an old root would sign what no host believes.
        ensure!(
            !folder.join(ROOT_JSON).exists(),
            "{} is missing, but {ROOT_JSON} names it: restore it from a copy",
            path.display()
        );
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| anyhow!("make a key"))?;
        write_private(&path, pkcs8.as_ref())?;
        made.push(key_file(role));
    }
    if !folder.join(ROOT_JSON).exists() {
        let keys = Keys::load_pairs(folder)?;
        files::write(&folder.join(ROOT_JSON), &keys.first_root(files::now_unix_s()? + ROOT_VALID_S)?)?;
        made.push(ROOT_JSON.into());
    }
    Ok(made)
}

fn write_private(path: &Path, der: &[u8]) -> Result<()> {
    let text = format!("{PEM_HEAD}\n{}\n{PEM_TAIL}\n", base64::engine::general_purpose::STANDARD.encode(der));
    let attempt = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    attempt().with_context(|| format!("write the key {}", path.display()))
}

fn read_private(path: &Path) -> Result<Ed25519KeyPair> {
    let bytes = files::read(path, MAX_KEY_FILE_BYTES)
        .context("an update key is missing: make them once with keel-image tuf-keys, and keep a copy")?;
    let parse = || {
        let text = std::str::from_utf8(&bytes).ok()?;
        let body = text.trim().strip_prefix(PEM_HEAD)?.strip_suffix(PEM_TAIL)?;
        let body: String = body.split_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(body).ok()?;
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()
    };
    parse().ok_or_else(|| anyhow!("{} is not an ed25519 key in PKCS #8, PEM", path.display()))
}

/// All role keys of the workstation, and the root that names them.
pub struct Keys {
    pairs: BTreeMap<Role, Ed25519KeyPair>,
    root: Option<(u64, Vec<u8>)>,
}

impl Keys {
    /// Reads the keys and the root, and checks that the root names the keys.
    pub fn load(folder: &Path) -> Result<Self> {
        let mut keys = Self::load_pairs(folder)?;
        let path = folder.join(ROOT_JSON);
        let bytes = files::read(&path, Role::Root.max_bytes())
            .context("the root metadata is missing: make it once with keel-image tuf-keys")?;
        let envelope = Envelope::parse(Role::Root, &bytes).map_err(|error| anyhow!("{} {error}", path.display()))?;
        let root: Root = envelope.read().map_err(|error| anyhow!("{} {error}", path.display()))?;
        for role in [Role::Targets, Role::Snapshot, Role::Timestamp] {
            let named =
                root.role(role).is_some_and(|keyids| keyids.keyids.contains(&keys.id(role).unwrap_or_default()));
            ensure!(named, "{} doesn't name the key in {}", path.display(), folder.join(key_file(role)).display());
        }
        keys.root = Some((root.version, bytes));
        Ok(keys)
    }

    fn load_pairs(folder: &Path) -> Result<Self> {
        let pairs = Role::ALL.into_iter().map(|role| Ok((role, read_private(&folder.join(key_file(role)))?)));
        Ok(Self { pairs: pairs.collect::<Result<_>>()?, root: None })
    }

    fn pair(&self, role: Role) -> Result<&Ed25519KeyPair> {
        self.pairs.get(&role).ok_or_else(|| anyhow!("there is no key for {role}"))
    }

    fn public(&self, role: Role) -> Result<Key> {
        let public = files::hex(self.pair(role)?.public_key().as_ref());
        Ok(Key { keytype: "ed25519".into(), scheme: "ed25519".into(), keyval: KeyValue { public } })
    }

    fn id(&self, role: Role) -> Result<String> {
        let canonical = tuf::canonical(&serde_json::to_value(self.public(role)?)?)?;
        Ok(files::hex(digest::digest(&digest::SHA256, &canonical).as_ref()))
    }

    fn first_root(&self, expires_unix_s: u64) -> Result<Vec<u8>> {
        let (mut keys, mut roles) = (BTreeMap::new(), BTreeMap::new());
        for role in Role::ALL {
            keys.insert(self.id(role)?, self.public(role)?);
            roles.insert(role.to_string(), RoleKeys { keyids: vec![self.id(role)?], threshold: 1 });
        }
        let root = Root {
            kind: Role::Root,
            spec_version: tuf::SPEC_VERSION.into(),
            version: 1,
            expires: Time(expires_unix_s),
            consistent_snapshot: true,
            keys,
            roles,
        };
        self.sign(Role::Root, &root)
    }

    /// Metadata as a signed file.
    pub fn sign<T: Serialize>(&self, role: Role, metadata: &T) -> Result<Vec<u8>> {
        let mut envelope = Envelope { signatures: Vec::new(), signed: serde_json::to_value(metadata)? };
        let signature = self.pair(role)?.sign(&envelope.signed_bytes()?);
        envelope.signatures.push(Signature { keyid: self.id(role)?, sig: files::hex(signature.as_ref()) });
        let bytes = serde_json::to_vec(&envelope)?;
        ensure!(
            bytes.len() as u64 <= role.max_bytes(),
            "{role}.json would be {} bytes, more than hosts read",
            bytes.len()
        );
        Ok(bytes)
    }

    /// Whether a file carries a signature by this workstation's key for the role.
    pub fn signed(&self, role: Role, envelope: &Envelope) -> Result<bool> {
        let (id, message) = (self.id(role)?, envelope.signed_bytes()?);
        let key = UnparsedPublicKey::new(&ED25519, self.pair(role)?.public_key().as_ref());
        Ok(envelope.signatures.iter().filter(|signature| signature.keyid == id).any(|signature| {
            let digits = signature.sig.as_bytes().chunks(2);
            let bytes: Option<Vec<u8>> =
                digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
            bytes.is_some_and(|bytes| key.verify(&message, &bytes).is_ok())
        }))
    }

    /// Puts the root into a repository as `N.root.json`, if it isn't there.
    pub fn put_root(&self, repository: &Path) -> Result<()> {
        let Some((version, bytes)) = &self.root else { return Ok(()) };
        let path = repository.join(format!("{version}.root.json"));
        if path.exists() {
            let same = files::read(&path, Role::Root.max_bytes())? == *bytes;
            ensure!(same, "{} is another root: this repository belongs to other keys", path.display());
            return Ok(());
        }
        files::write(&path, bytes)
    }
}
