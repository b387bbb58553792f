//! Who signs: a key in a file, or a program that asks for a signature elsewhere, as a hardware security module.
//!
//! - `tuf-ROLE.pem`, `tuf-ROLE-NAME.pem`: an ed25519 key, PKCS #8 in PEM, readable by its owner alone.
//! - `tuf-ROLE.signer`, `tuf-ROLE-NAME.signer`: TOML with the public key and a command. The command gets the bytes to be
//!   signed on standard input and prints the signature in hexadecimal on standard output; `KEEL_TUF_ROLE` names the role.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use base64::Engine as _;
use keel_spec::tuf::public_key::from_hex;
use keel_spec::tuf::{self, Key, KeyValue, PublicKey, Role, Signature};
use ring::rand::SystemRandom;
use ring::signature::{self, Ed25519KeyPair, KeyPair};
use serde::Deserialize;

use super::files;

const MAX_KEY_FILE_BYTES: u64 = 16 << 10;
/// Most bytes that a command may print: RSA with 8192 bits takes 2048 digits.
const MAX_PRINTED_BYTES: u64 = 8 << 10;
/// Longest that a command may take: somebody may have to touch a token.
const COMMAND_PATIENCE: Duration = Duration::from_secs(120);
const PEM_HEAD: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_TAIL: &str = "-----END PRIVATE KEY-----";

/// Suffixes of the files that hold a signer.
pub const SUFFIXES: [&str; 2] = ["pem", "signer"];

/// A key that can sign.
pub struct Signer {
    /// Its public key.
    pub key: Key,
    how: How,
    name: String,
}

enum How {
    File(Ed25519KeyPair),
    Command(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignerFile {
    keytype: String,
    scheme: String,
    public: String,
    command: Vec<String>,
}

/// Makes an ed25519 key, in a file that must not be there yet.
pub fn make(path: &Path) -> Result<()> {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| anyhow!("make a key"))?;
    let text = format!("{PEM_HEAD}\n{}\n{PEM_TAIL}\n", base64::engine::general_purpose::STANDARD.encode(pkcs8));
    let attempt = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    attempt().with_context(|| format!("write the key {}", path.display()))
}

impl Signer {
    /// Reads a file of either kind.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = files::read(path, MAX_KEY_FILE_BYTES)?;
        let text = std::str::from_utf8(&bytes).with_context(|| format!("read {}", path.display()))?;
        let name = path.display().to_string();
        if path.extension().is_some_and(|suffix| suffix == "pem") {
            let pair = key_pair(text).ok_or_else(|| anyhow!("{name} is not an ed25519 key in PKCS #8, PEM"))?;
            let public = files::hex(pair.public_key().as_ref());
            let key = Key { keytype: "ed25519".into(), scheme: "ed25519".into(), keyval: KeyValue { public } };
            return Ok(Self { key, how: How::File(pair), name });
        }
        let file: SignerFile = toml::from_str(text).with_context(|| format!("read {name}"))?;
        let key = Key { keytype: file.keytype, scheme: file.scheme, keyval: KeyValue { public: file.public } };
        ensure!(PublicKey::read(&key).is_some(), "{name}: no key of a kind that hosts verify: see docs/updates.md");
        ensure!(!file.command.is_empty(), "{name}: command is empty");
        Ok(Self { key, how: How::Command(file.command), name })
    }

    /// ID of the key: the SHA-256 of its canonical form.
    pub fn id(&self) -> Result<String> {
        key_id(&self.key)
    }

    /// Signs, and checks what comes out: a token that holds another key must not spoil a publication.
    pub fn sign(&self, role: Role, message: &[u8]) -> Result<Signature> {
        let signature = match &self.how {
            How::File(pair) => pair.sign(message).as_ref().to_vec(),
            How::Command(command) => {
                run(command, role, message).with_context(|| format!("sign {role} by {}", self.name))?
            }
        };
        ensure!(
            verifies(&self.key, message, &signature),
            "{}: what it signed isn't verified by the public key in that file",
            self.name
        );
        Ok(Signature { keyid: self.id()?, sig: files::hex(&signature) })
    }
}

/// ID of a key: the SHA-256 of its canonical form.
pub fn key_id(key: &Key) -> Result<String> {
    let canonical = tuf::canonical(&serde_json::to_value(key)?)?;
    Ok(files::hex(ring::digest::digest(&ring::digest::SHA256, &canonical).as_ref()))
}

fn key_pair(text: &str) -> Option<Ed25519KeyPair> {
    let body: String = text.trim().strip_prefix(PEM_HEAD)?.strip_suffix(PEM_TAIL)?.split_whitespace().collect();
    let der = base64::engine::general_purpose::STANDARD.decode(body).ok()?;
    Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).ok()
}

/// Whether a signature is one by this key.
pub fn verifies(key: &Key, message: &[u8], bytes: &[u8]) -> bool {
    let (algorithm, public): (&'static dyn signature::VerificationAlgorithm, _) = match PublicKey::read(key) {
        Some(PublicKey::Ed25519(key)) => (&signature::ED25519, key),
        Some(PublicKey::P256(point)) => (&signature::ECDSA_P256_SHA256_ASN1, point),
        Some(PublicKey::RsaPss(key)) => (&signature::RSA_PSS_2048_8192_SHA256, key),
        None => return false,
    };
    signature::UnparsedPublicKey::new(algorithm, public).verify(message, bytes).is_ok()
}

/// Runs a command with a message on its standard input; what it prints, out of hexadecimal.
fn run(command: &[String], role: Role, message: &[u8]) -> Result<Vec<u8>> {
    let [program, arguments @ ..] = command else { bail!("the command is empty") };
    let mut child = Command::new(program)
        .args(arguments)
        .env("KEEL_TUF_ROLE", role.name())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("start {program}: it has no pipes");
    };
    // Each pipe has its thread: a program may print before it has read everything, or never end.
    let message = message.to_vec();
    std::thread::spawn(move || stdin.write_all(&message));
    let (sender, printed) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let outcome = stdout.take(MAX_PRINTED_BYTES).read_to_string(&mut text);
        sender.send(outcome.map(|_| text))
    });
    let Ok(text) = printed.recv_timeout(COMMAND_PATIENCE) else {
        // It may have ended just now, which is as good.
        let _ = child.kill();
        let _ = child.wait();
        bail!("{program} didn't end within {} s", COMMAND_PATIENCE.as_secs());
    };
    let status = child.wait().with_context(|| format!("wait for {program}"))?;
    ensure!(status.success(), "{program} failed: {status}");
    let text = text.with_context(|| format!("read what {program} printed"))?;
    from_hex(text.trim()).ok_or_else(|| anyhow!("{program} didn't print a signature in hexadecimal"))
}
