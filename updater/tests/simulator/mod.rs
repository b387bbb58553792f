//! A repository of The Update Framework in memory, and an HTTP server for it that can be told to misbehave.
//!
//! Metadata is made and signed here with ring, independently of the publisher and of the client's own types.
#![allow(dead_code, unused_imports)]

mod server;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keel_spec::tuf::{Time, canonical, encode};
use keel_updater::tuf::client::PATIENCE;
use keel_updater::tuf::keys::{sha256_hex, to_hex};
use keel_updater::tuf::store::Store;
use keel_updater::tuf::{Client, Error, TrustedSet};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

pub use server::{Misbehaviour, Server};

pub const LATER: &str = "2999-01-01T00:00:00Z";
pub const PAST: &str = "2001-01-01T00:00:00Z";
pub const TOP: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

pub struct Signer(Ed25519KeyPair);

impl Signer {
    pub fn new() -> Arc<Self> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Arc::new(Self(Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8.as_ref()).unwrap()))
    }

    pub fn key(&self) -> Value {
        json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": to_hex(self.0.public_key().as_ref())}})
    }

    pub fn id(&self) -> String {
        sha256_hex(&canonical(&self.key()).unwrap())
    }
}

pub fn sign(signed: &Value, by: &[Arc<Signer>]) -> Vec<u8> {
    let message = canonical(signed).unwrap();
    let signature =
        |signer: &Arc<Signer>| json!({"keyid": signer.id(), "sig": to_hex(signer.0.sign(&message).as_ref())});
    let signatures: Vec<Value> = by.iter().map(signature).collect();
    serde_json::to_vec_pretty(&json!({"signatures": signatures, "signed": signed})).unwrap()
}

/// A repository: what its owner edits, and what is published of it.
pub struct Repository {
    /// `signed` of every role, to be edited before [`Repository::publish`].
    pub roles: BTreeMap<String, Value>,
    /// Who signs a role.
    pub signers: BTreeMap<String, Vec<Arc<Signer>>>,
    /// Whether snapshot and timestamp promise lengths and digests.
    pub hashes: bool,
    pub server: Server,
    published: BTreeMap<String, Vec<u8>>,
}

impl Repository {
    /// All four roles, with a key each, published in version 1.
    pub fn new() -> Self {
        let mut it = Self {
            roles: BTreeMap::new(),
            signers: BTreeMap::new(),
            hashes: false,
            server: Server::start(),
            published: BTreeMap::new(),
        };
        it.roles.insert("root".into(), json!({"keys": {}, "roles": {}, "consistent_snapshot": true}));
        it.roles.insert("timestamp".into(), json!({"meta": {"snapshot.json": {"version": 1}}}));
        it.roles.insert("snapshot".into(), json!({"meta": {}}));
        it.roles.insert("targets".into(), json!({"targets": {}}));
        for role in TOP {
            it.begin(role, role);
            it.set_keys(role, &[Signer::new()], 1);
        }
        it.publish(&["root", "targets", "snapshot", "timestamp"]);
        it
    }

    fn begin(&mut self, role: &str, kind: &str) {
        let head = json!({"_type": kind, "spec_version": "1.0.31", "version": 0, "expires": LATER});
        self.role(role).extend(head.as_object().unwrap().clone());
    }

    pub fn role(&mut self, role: &str) -> &mut serde_json::Map<String, Value> {
        self.roles.get_mut(role).unwrap().as_object_mut().unwrap()
    }

    /// Whose signatures count for a top-level role, and who signs it.
    pub fn set_keys(&mut self, role: &str, signers: &[Arc<Signer>], threshold: u64) {
        let root = self.role("root");
        for signer in signers {
            root["keys"][signer.id()] = signer.key();
        }
        let ids: Vec<String> = signers.iter().map(|signer| signer.id()).collect();
        root["roles"][role] = json!({"keyids": ids, "threshold": threshold});
        self.signers.insert(role.into(), signers.to_vec());
    }

    /// The role `by` delegates to `to`, last; `how` holds paths and the like.
    pub fn delegate(&mut self, by: &str, to: &str, how: Value) {
        let signer = Signer::new();
        if !self.roles.contains_key(to) {
            self.roles.insert(to.into(), json!({"targets": {}}));
            self.begin(to, "targets");
        }
        let mut role = json!({"name": to, "keyids": [signer.id()], "threshold": 1, "terminating": false});
        role.as_object_mut().unwrap().extend(how.as_object().unwrap().clone());
        let delegations = self.role(by).entry("delegations").or_insert_with(|| json!({"keys": {}, "roles": []}));
        delegations["keys"][signer.id()] = signer.key();
        delegations["roles"].as_array_mut().unwrap().push(role);
        self.signers.entry(to.into()).or_default().push(signer);
    }

    /// Lists a target in a role, and serves it.
    pub fn add(&mut self, role: &str, name: &str, content: &[u8]) {
        let file = json!({"length": content.len(), "hashes": {"sha256": sha256_hex(content)}});
        self.role(role)["targets"][name] = file;
        self.serve_target(name, &sha256_hex(content), content);
    }

    pub fn serve_target(&self, name: &str, digest: &str, content: &[u8]) {
        let (folder, base) = name.rsplit_once('/').map_or((String::new(), name), |(a, b)| (format!("{a}/"), b));
        self.server.put(&format!("targets/{}", encode::path(&format!("{folder}{digest}.{base}"))), content.to_vec());
        self.server.put(&format!("targets/{}", encode::path(name)), content.to_vec());
    }

    /// The file that a role is published under.
    pub fn path(&self, role: &str, version: u64) -> String {
        let name = encode::segment(role);
        let versioned = role == "root" || role != "timestamp" && self.roles["root"]["consistent_snapshot"] == true;
        if versioned { format!("metadata/{version}.{name}.json") } else { format!("metadata/{name}.json") }
    }

    /// Counts up, signs and serves roles in this order, and enters them where they have to be listed.
    pub fn publish(&mut self, roles: &[&str]) {
        for role in roles {
            let version = self.roles[*role]["version"].as_u64().unwrap() + 1;
            self.role(role)["version"] = version.into();
            self.publish_as(role, version);
        }
    }

    /// The same without counting up; the file is named after `version`, whatever the metadata says.
    pub fn publish_as(&mut self, role: &str, version: u64) {
        let bytes = sign(&self.roles[role], &self.signers[role]);
        self.server.put(&self.path(role, version), bytes.clone());
        let mut meta = json!({"version": version});
        if self.hashes {
            meta["length"] = bytes.len().into();
            meta["hashes"] = json!({"sha256": sha256_hex(&bytes)});
        }
        match role {
            "root" | "timestamp" => {}
            "snapshot" => self.role("timestamp")["meta"]["snapshot.json"] = meta,
            _ => self.role("snapshot")["meta"][format!("{role}.json")] = meta,
        }
        self.published.insert((*role).into(), bytes);
    }

    pub fn publish_all(&mut self) {
        let delegated: Vec<String> = self.roles.keys().filter(|role| !TOP.contains(&role.as_str())).cloned().collect();
        self.publish(&delegated.iter().map(String::as_str).collect::<Vec<_>>());
        self.publish(&["targets", "snapshot", "timestamp"]);
    }

    /// What was published of a role last.
    pub fn published(&self, role: &str) -> &[u8] {
        &self.published[role]
    }

    /// A host that trusts the root published last.
    pub fn host(&self, name: &str) -> Host {
        let folder = std::env::temp_dir().join(format!("keel-tuf-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let host = Host { folder, root: self.published("root").to_vec(), address: self.server.address() };
        std::fs::write(host.folder.join("root.json"), &host.root).unwrap();
        host
    }
}

/// A host with its folder of metadata, and one of targets.
pub struct Host {
    pub folder: PathBuf,
    pub root: Vec<u8>,
    pub address: String,
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Host {
    pub fn metadata(&self) -> PathBuf {
        self.folder.join("metadata")
    }

    /// The command line, as others drive it; its exit status.
    pub fn run(&self, arguments: &[&str]) -> i32 {
        self.command(arguments).status().expect("run the example tuf_client").code().expect("no signal ends it")
    }

    pub fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(example());
        let metadata = self.metadata();
        command.args(["--metadata-url", &format!("{}/metadata/", self.address), "--metadata-dir"]).arg(metadata);
        command.args(["--target-base-url", &format!("{}/targets/", self.address), "--target-dir"]);
        command.arg(self.folder.join("targets")).args(arguments).stderr(std::process::Stdio::null());
        command.stdout(std::process::Stdio::null());
        command
    }

    pub fn init(&self) -> i32 {
        self.run(&["init", self.folder.join("root.json").to_str().unwrap()])
    }

    pub fn refresh(&self) -> i32 {
        self.run(&["refresh"])
    }

    pub fn download(&self, name: &str) -> i32 {
        self.run(&["--target-name", name, "download"])
    }

    /// The client in this process, at another time.
    pub fn refresh_at(&self, now: Time) -> Result<TrustedSet, Error> {
        let (source, store) = (self.source(), self.store());
        self.client(&source, &store).refresh(now)
    }

    pub fn source(&self) -> keel_updater::source::Http {
        keel_updater::source::Http::new(&format!("{}/metadata", self.address), None).unwrap()
    }

    pub fn store(&self) -> Store {
        Store::open(&self.metadata()).unwrap()
    }

    pub fn client<'a>(&'a self, source: &'a keel_updater::source::Http, store: &'a Store) -> Client<'a> {
        Client { source, store, trusted_root: &self.root, patience: PATIENCE }
    }

    /// Version of a role that is trusted.
    pub fn version(&self, role: &str) -> Option<u64> {
        self.trusted(role).and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok()?["signed"]["version"].as_u64())
    }

    pub fn trusted(&self, role: &str) -> Option<Vec<u8>> {
        std::fs::read(self.metadata().join(format!("{role}.json"))).ok()
    }

    /// All trusted files with their versions, sorted by name.
    pub fn all_trusted(&self) -> Vec<(String, u64)> {
        let mut names: Vec<String> = std::fs::read_dir(self.metadata())
            .unwrap()
            .filter_map(|entry| entry.unwrap().file_name().to_str()?.strip_suffix(".json").map(str::to_owned))
            .collect();
        names.sort();
        names.into_iter().map(|name| (name.clone(), self.version(&name).unwrap())).collect()
    }

    /// Contents of all downloaded targets, sorted; left-overs would be among them.
    pub fn downloaded(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.folder.join("targets")) else { return Vec::new() };
        let mut contents: Vec<_> = entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
        contents.sort();
        contents
    }
}

/// Cargo builds examples before it runs a package's tests, but not for `--test NAME` alone.
fn example() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let path = this.parent().and_then(Path::parent).unwrap().join("examples/tuf_client");
    assert!(path.exists(), "{} is missing: cargo build -p keel-updater --examples", path.display());
    path
}

/// Roles with versions, as [`Host::all_trusted`] tells them.
pub fn versions(of: &[(&str, u64)]) -> Vec<(String, u64)> {
    of.iter().map(|(role, version)| ((*role).into(), *version)).collect()
}
