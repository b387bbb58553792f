//! The folder of the workstation's update keys: who signs for which role, and the roots that say so.
//!
//! `tuf-ROLE*.pem` and `tuf-ROLE*.signer` are the keys ([`super::signer`]); `root.json` is the newest root, which a
//! release carries; `roots/N.root.json` are all of them, which lead hosts from an old one to the newest. In `retired/`
//! are keys that were replaced: hosts that know an older root want their signatures under the next one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use keel_spec::tuf::{Envelope, Role, Root};
use serde::Serialize;

use super::files;
use super::root;
use super::signer::{self, SUFFIXES, Signer};

const ROOT_JSON: &str = "root.json";
const ROOTS: &str = "roots";
const RETIRED: &str = "retired";
/// Most roots of one repository, as many as hosts walk.
const MAX_ROOTS: u64 = 1024;

/// Makes the keys and the root that are absent; returns their file names. Further keys beside the first: `count` of
/// that role, and as many of them are needed as `threshold` says, 1 by default.
pub fn ensure(folder: &Path, count: &BTreeMap<Role, u64>, threshold: &BTreeMap<Role, u64>) -> Result<Vec<String>> {
    std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let first = !folder.join(ROOT_JSON).exists();
    let mut made = Vec::new();
    for role in Role::ALL {
        // A new key beside an old root would sign what no host believes.
        ensure!(
            first || !signer_files(folder, role)?.is_empty(),
            "{} has no key for {role}, but {ROOT_JSON} names one: restore it from a copy",
            folder.display()
        );
        for number in
            signer_files(folder, role)?.len() as u64..if first { count.get(&role).copied().unwrap_or(1) } else { 0 }
        {
            let name = key_file(role, number + 1);
            signer::make(&folder.join(&name))?;
            made.push(name);
        }
    }
    if first {
        let keys =
            Keys { folder: folder.into(), signers: read_signers(folder)?, retired: Vec::new(), roots: Vec::new() };
        keys.put_new_root(&root::Change { threshold: threshold.clone(), ..root::Change::default() })?;
        made.push(ROOT_JSON.into());
    }
    Ok(made)
}

/// The file of a role's first, second, … key.
pub fn key_file(role: Role, number: u64) -> String {
    match number {
        1 => format!("tuf-{role}.pem"),
        number => format!("tuf-{role}-{number}.pem"),
    }
}

fn signer_files(folder: &Path, role: Role) -> Result<Vec<PathBuf>> {
    let listing = || format!("list {}", folder.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(listing)? {
        let path = entry.with_context(listing)?.path();
        let suffix = path.extension().and_then(|suffix| suffix.to_str()).unwrap_or_default();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let rest = stem.strip_prefix("tuf-").and_then(|stem| stem.strip_prefix(role.name()));
        if SUFFIXES.contains(&suffix) && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-')) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn read_signers(folder: &Path) -> Result<BTreeMap<Role, Vec<Signer>>> {
    let of = |role| signer_files(folder, role)?.iter().map(|path| Signer::read(path)).collect::<Result<_>>();
    Role::ALL.into_iter().map(|role| Ok((role, of(role)?))).collect()
}

/// All role keys of the workstation, and the roots that name them.
pub struct Keys {
    folder: PathBuf,
    signers: BTreeMap<Role, Vec<Signer>>,
    /// Replaced root keys.
    retired: Vec<Signer>,
    /// The newest last.
    roots: Vec<(Root, Vec<u8>)>,
}

impl Keys {
    /// Reads the keys and the roots.
    pub fn load(folder: &Path) -> Result<Self> {
        let bytes = files::read(&folder.join(ROOT_JSON), Role::Root.max_bytes())
            .context("the root metadata is missing: make it once with keel-image tuf-keys, and keep a copy")?;
        let newest = read_root(&folder.join(ROOT_JSON), &bytes)?;
        let mut roots = Vec::new();
        for version in 1..newest.version.min(MAX_ROOTS) {
            let path = folder.join(ROOTS).join(format!("{version}.root.json"));
            // Hosts with an older root than these can't follow; the repository has them if this folder hasn't.
            let Ok(bytes) = files::read(&path, Role::Root.max_bytes()) else { continue };
            roots.push((read_root(&path, &bytes)?, bytes));
        }
        roots.push((newest, bytes));
        let retired = match folder.join(RETIRED).exists() {
            true => signer_files(&folder.join(RETIRED), Role::Root)?,
            false => Vec::new(),
        };
        let retired = retired.iter().map(|path| Signer::read(path)).collect::<Result<_>>()?;
        Ok(Self { folder: folder.into(), signers: read_signers(folder)?, retired, roots })
    }

    /// The newest root.
    pub fn root(&self) -> Option<&Root> {
        self.roots.last().map(|(root, _)| root)
    }

    /// Who may sign for a role.
    pub fn signers(&self, role: Role) -> &[Signer] {
        self.signers.get(&role).map(Vec::as_slice).unwrap_or_default()
    }

    /// Metadata as a signed file, by as many keys of the role as the newest root wants.
    pub fn sign<T: Serialize>(&self, role: Role, metadata: &T) -> Result<Vec<u8>> {
        let root = self.root().ok_or_else(|| anyhow!("there is no root"))?;
        self.sign_under(&[root], role, metadata)
    }

    /// The same, for all of these roots.
    fn sign_under<T: Serialize>(&self, roots: &[&Root], role: Role, metadata: &T) -> Result<Vec<u8>> {
        let mut envelope = Envelope { signatures: Vec::new(), signed: serde_json::to_value(metadata)? };
        let message = envelope.signed_bytes()?;
        let retired = if role == Role::Root { self.retired.as_slice() } else { &[] };
        let mut failures = String::new();
        let mut signed = BTreeSet::new();
        for signer in self.signers(role).iter().chain(retired) {
            let id = signer.id()?;
            let named = |root: &&Root| root.role(role).is_some_and(|keys| keys.keyids.contains(&id));
            if !roots.iter().any(named) || !signed.insert(id) {
                continue;
            }
            // A token that isn't plugged in does no harm as long as the others are enough.
            match signer.sign(role, &message) {
                Ok(signature) => envelope.signatures.push(signature),
                Err(error) => failures.push_str(&format!("; {error:#}")),
            }
        }
        for root in roots {
            if let Err(have) = root::threshold_met(root, role, &envelope) {
                let need = root.role(role).map_or(1, |keys| keys.threshold);
                let (version, folder) = (root.version, self.folder.display());
                bail!(
                    "{role} has signatures by {have} of the {need} keys that root {version} wants; keys are in {folder}{failures}"
                );
            }
        }
        let bytes = serde_json::to_vec(&envelope)?;
        ensure!(
            bytes.len() as u64 <= role.max_bytes(),
            "{role}.json would be {} bytes, more than hosts read",
            bytes.len()
        );
        Ok(bytes)
    }

    /// Whether a file is signed as the newest root wants it, or an older one did.
    pub fn signed(&self, role: Role, envelope: &Envelope) -> bool {
        self.roots.iter().rev().any(|(root, _)| root::threshold_met(root, role, envelope).is_ok())
    }

    /// Makes the next root, or the first one, from the keys that are there; returns its version.
    pub fn put_new_root(&self, change: &root::Change) -> Result<u64> {
        let before = self.root();
        let next =
            root::next(before, change, |role| self.signers(role).iter().map(|signer| signer.key.clone()).collect())?;
        let both: Vec<&Root> = before.into_iter().chain([&next]).collect();
        let bytes = self.sign_under(&both, Role::Root, &next)?;
        let roots = self.folder.join(ROOTS);
        std::fs::create_dir_all(&roots).with_context(|| format!("make {}", roots.display()))?;
        // Those of versions that kept the newest alone, too.
        for (root, bytes) in &self.roots {
            files::write(&roots.join(format!("{}.root.json", root.version)), bytes)?;
        }
        files::write(&roots.join(format!("{}.root.json", next.version)), &bytes)?;
        files::write(&self.folder.join(ROOT_JSON), &bytes)?;
        Ok(next.version)
    }

    /// Puts all roots into a repository as `N.root.json`, where they aren't there.
    pub fn put_roots(&self, repository: &Path) -> Result<()> {
        for (root, bytes) in &self.roots {
            let path = repository.join(format!("{}.root.json", root.version));
            if path.exists() {
                let same = files::read(&path, Role::Root.max_bytes())? == *bytes;
                ensure!(same, "{} is another root: this repository belongs to other keys", path.display());
                continue;
            }
            files::write(&path, bytes)?;
        }
        Ok(())
    }
}

/// Moves a role's keys aside and makes as many new ones; returns the names of the new ones.
pub fn replace(folder: &Path, role: Role) -> Result<Vec<String>> {
    let old = signer_files(folder, role)?;
    let retired = folder.join(RETIRED);
    std::fs::create_dir_all(&retired).with_context(|| format!("make {}", retired.display()))?;
    let version = Keys::load(folder)?.root().map_or(0, |root| root.version);
    let mut made = Vec::new();
    for (number, path) in old.iter().enumerate() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        ensure!(
            path.extension().is_some_and(|suffix| suffix == "pem"),
            "{}: a key outside of this workstation can't be replaced here: put the new one's file there and move this \
             one to {RETIRED}/",
            path.display()
        );
        // After the role's name, so that it is still found as one of the role.
        let aside = retired.join(format!("tuf-{role}-until-{version}-{name}"));
        std::fs::rename(path, &aside).with_context(|| format!("move {} to {}", path.display(), aside.display()))?;
        let name = key_file(role, number as u64 + 1);
        signer::make(&folder.join(&name))?;
        made.push(name);
    }
    Ok(made)
}

fn read_root(path: &Path, bytes: &[u8]) -> Result<Root> {
    let envelope = Envelope::parse(Role::Root, bytes).map_err(|error| anyhow!("{} {error}", path.display()))?;
    envelope.read().map_err(|error| anyhow!("{} {error}", path.display()))
}
