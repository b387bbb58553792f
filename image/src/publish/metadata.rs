//! Reading what is published, signing what is to be.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, anyhow, ensure};
use keel_spec::tuf::{Envelope, MetaFile, Role, SPEC_VERSION, Snapshot, Targets, Time, Timestamp};
use ring::digest;

use super::files;
use super::keys::Keys;

/// When metadata expires.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// Targets and snapshot.
    pub targets: Time,
    /// Timestamp.
    pub timestamp: Time,
}

impl Expiry {
    /// So many days from now; less than none makes metadata that has expired already, as tests want.
    pub fn from_days(now_unix_s: u64, targets_days: i64, timestamp_days: i64) -> Self {
        let after = |days: i64| Time(now_unix_s.saturating_add_signed(days.saturating_mul(86_400)));
        Self { targets: after(targets_days), timestamp: after(timestamp_days) }
    }
}

/// What a repository holds now. Each list was signed by this workstation's keys: what somebody else put there is
/// refused, not signed again.
pub struct Published {
    timestamp: Option<u64>,
    /// Version of the snapshot, and its file.
    pub snapshot: Option<(u64, Vec<u8>)>,
    /// The targets' file, and what it says.
    pub targets: Option<(Vec<u8>, Targets)>,
}

impl Published {
    /// Reads a repository, empty or not.
    pub fn read(repository: &Path, keys: &Keys) -> Result<Self> {
        let path = repository.join("timestamp.json");
        if !path.exists() {
            return Ok(Self { timestamp: None, snapshot: None, targets: None });
        }
        let (_, timestamp): (_, Timestamp) = read_role(repository, "timestamp.json", Role::Timestamp, keys)?;
        let version = |meta: &BTreeMap<String, MetaFile>, name: &str| {
            meta.get(name).map(|file| file.version).ok_or_else(|| anyhow!("{} lists no {name}", path.display()))
        };
        let name = format!("{}.snapshot.json", version(&timestamp.meta, "snapshot.json")?);
        let (bytes, snapshot): (_, Snapshot) = read_role(repository, &name, Role::Snapshot, keys)?;
        let name = format!("{}.targets.json", version(&snapshot.meta, "targets.json")?);
        let targets = read_role(repository, &name, Role::Targets, keys)?;
        Ok(Self {
            timestamp: Some(timestamp.version),
            snapshot: Some((snapshot.version, bytes)),
            targets: Some(targets),
        })
    }

    /// What is said of a target beside what it consists of.
    pub fn custom(&self, name: &str) -> Option<serde_json::Value> {
        self.targets.as_ref()?.1.targets.get(name)?.custom.clone()
    }

    /// Version of the targets; 0 before the first publication.
    pub fn targets_version(&self) -> u64 {
        self.targets.as_ref().map_or(0, |(_, targets)| targets.version)
    }

    /// Version of the snapshot; 0 before the first publication.
    pub fn snapshot_version(&self) -> u64 {
        self.snapshot.as_ref().map_or(0, |(version, _)| *version)
    }

    /// Version of the timestamp that is to be written.
    pub fn next_timestamp(&self) -> u64 {
        self.timestamp.unwrap_or(0) + 1
    }
}

fn read_role<T: keel_spec::tuf::Metadata>(
    repository: &Path,
    name: &str,
    role: Role,
    keys: &Keys,
) -> Result<(Vec<u8>, T)> {
    let path = repository.join(name);
    let bytes = files::read(&path, role.max_bytes())?;
    let envelope = Envelope::parse(role, &bytes).map_err(|error| anyhow!("{} {error}", path.display()))?;
    ensure!(
        keys.signed(role, &envelope),
        "{} isn't signed by this workstation's {role} keys: somebody changed it, or the repository belongs to other keys",
        path.display()
    );
    let metadata = envelope.read().map_err(|error| anyhow!("{} {error}", path.display()))?;
    Ok((bytes, metadata))
}

fn meta_of(version: u64, bytes: &[u8]) -> MetaFile {
    let sha256 = files::hex(digest::digest(&digest::SHA256, bytes).as_ref());
    MetaFile { version, length: Some(bytes.len() as u64), hashes: BTreeMap::from([("sha256".into(), sha256)]) }
}

/// Signs and writes a snapshot of one targets file; returns the file.
pub fn write_snapshot(
    repository: &Path,
    keys: &Keys,
    version: u64,
    targets_version: u64,
    targets: &[u8],
    expiry: Expiry,
) -> Result<Vec<u8>> {
    let snapshot = Snapshot {
        kind: Role::Snapshot,
        spec_version: SPEC_VERSION.into(),
        version,
        expires: expiry.targets,
        meta: BTreeMap::from([("targets.json".into(), meta_of(targets_version, targets))]),
    };
    let bytes = keys.sign(Role::Snapshot, &snapshot)?;
    files::write(&repository.join(format!("{version}.snapshot.json")), &bytes)?;
    Ok(bytes)
}

/// Signs and writes the timestamp of one snapshot file: from now on readers see it.
pub fn write_timestamp(
    repository: &Path,
    keys: &Keys,
    version: u64,
    snapshot: &[u8],
    snapshot_version: u64,
    expiry: Expiry,
) -> Result<()> {
    let timestamp = Timestamp {
        kind: Role::Timestamp,
        spec_version: SPEC_VERSION.into(),
        version,
        expires: expiry.timestamp,
        meta: BTreeMap::from([("snapshot.json".into(), meta_of(snapshot_version, snapshot))]),
    };
    files::write(&repository.join("timestamp.json"), &keys.sign(Role::Timestamp, &timestamp)?)
}
