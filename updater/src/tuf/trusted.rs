//! The pure part of the client workflow (specification 1.0.33, section 5): bytes in, trust or refusal out.
//!
//! A [`TrustedSet`] begins with a root that is trusted out of band. Everything else has to come in order: newer roots,
//! one by one; then the timestamp; then the snapshot that it names; then the targets that the snapshot names. Each
//! step refuses what comes too early, so a caller can't skip one. Before the timestamp, what was accepted in earlier
//! refreshes is handed in ([`TrustedSet::remember`]): it guards against old versions, and is never more than that.
//!
//! A refused file leaves the set as it was.

use std::collections::BTreeMap;

use keel_spec::tuf::{Envelope, MetaFile, Role, Root, Snapshot, TargetFile, Targets, Time, Timestamp};

use super::error::{Error, Problem};
use super::keys;

const SNAPSHOT: &str = "snapshot.json";
const TARGETS: &str = "targets.json";

/// What is trusted so far.
#[derive(Debug)]
pub struct TrustedSet {
    now: Time,
    root: Root,
    timestamp: Option<Timestamp>,
    snapshot: Option<Snapshot>,
    targets: Option<Targets>,
    /// From earlier refreshes.
    old_timestamp: Option<Timestamp>,
    old_snapshot: Option<Snapshot>,
}

/// What became of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewRoot {
    /// Its version.
    pub version: u64,
    /// Keys of timestamp or snapshot changed: what was accepted under the old ones must be forgotten (5.3.11), or
    /// somebody who had stolen one could have locked this host out with an enormous version.
    pub forget: bool,
}

impl TrustedSet {
    /// Begins with a root that is trusted because of where it came from (5.2). It must be signed by itself, which
    /// finds damage. `now` is the time that the whole refresh is held against (5.1).
    pub fn new(root: &[u8], now: Time) -> Result<Self, Error> {
        let file = "root.json";
        let (envelope, root) = read_root(file, root)?;
        keys::verify(&root, Role::Root, file, &envelope)?;
        Ok(Self { now, root, timestamp: None, snapshot: None, targets: None, old_timestamp: None, old_snapshot: None })
    }

    /// The root that is trusted now.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// The next root (5.3.4 to 5.3.8): signed by a threshold of the old one's keys and of its own, one version up.
    pub fn update_root(&mut self, bytes: &[u8]) -> Result<NewRoot, Error> {
        let file = format!("{}.root.json", self.root.version.saturating_add(1));
        if self.timestamp.is_some() {
            return Err(Error::new(file, Problem::NotListed("a place before the timestamp".into())));
        }
        let (envelope, root) = read_root(&file, bytes)?;
        keys::verify(&self.root, Role::Root, &file, &envelope)?; // 5.3.4
        keys::verify(&root, Role::Root, &file, &envelope)?;
        if root.version < self.root.version + 1 {
            let (offered, trusted) = (root.version, self.root.version);
            return Err(Error::new(file, Problem::Rollback { what: "root".into(), offered, trusted }));
        }
        if root.version != self.root.version + 1 {
            let (got, want) = (root.version, self.root.version + 1);
            return Err(Error::new(file, Problem::Version { got, want, by: "its name".into() })); // 5.3.5
        }
        let forget = [Role::Timestamp, Role::Snapshot].into_iter().any(|role| {
            let before = self.root.roles.get(&role);
            before.map(|keys| (&keys.keyids, keys.threshold))
                != root.roles.get(&role).map(|keys| (&keys.keyids, keys.threshold))
        });
        if forget {
            self.old_timestamp = None;
            self.old_snapshot = None;
        }
        let version = root.version;
        self.root = root;
        Ok(NewRoot { version, forget })
    }

    /// The newest root must not have expired (5.3.10).
    pub fn finish_root(&self) -> Result<(), Error> {
        self.check_expiry(&format!("{}.root.json", self.root.version), self.root.expires)
    }

    /// Takes what an earlier refresh accepted, if today's keys still vouch for it; says nothing otherwise, because
    /// files on this host's disk are no reason to refuse the repository's.
    pub fn remember(&mut self, timestamp: Option<&[u8]>, snapshot: Option<&[u8]>) {
        let read = |role: Role, bytes: Option<&[u8]>| {
            let envelope = Envelope::parse(role, bytes?).ok()?;
            keys::verify(&self.root, role, role.name(), &envelope).ok()?;
            Some(envelope)
        };
        self.old_timestamp = read(Role::Timestamp, timestamp).and_then(|envelope| envelope.read().ok());
        self.old_snapshot = read(Role::Snapshot, snapshot).and_then(|envelope| envelope.read().ok());
    }

    /// The timestamp (5.4): signed, not older than the one before, neither it nor the snapshot in it, not expired.
    pub fn update_timestamp(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let file = "timestamp.json";
        self.finish_root()?;
        let timestamp: Timestamp = self.read(Role::Timestamp, file, bytes)?; // 5.4.2
        let snapshot = listed(file, &timestamp.meta, SNAPSHOT)?;
        if let Some(old) = &self.old_timestamp {
            not_older(file, "timestamp", timestamp.version, old.version)?; // 5.4.3.1
            let before = listed(file, &old.meta, SNAPSHOT)?;
            not_older(file, "snapshot", snapshot.version, before.version)?; // 5.4.3.2
        }
        self.check_expiry(file, timestamp.expires)?; // 5.4.4
        self.timestamp = Some(timestamp);
        Ok(())
    }

    /// What the timestamp says of the snapshot.
    pub fn snapshot_meta(&self) -> Result<&MetaFile, Error> {
        let timestamp = self.timestamp.as_ref().ok_or_else(|| Error::new("timestamp.json", Problem::Missing))?;
        listed("timestamp.json", &timestamp.meta, SNAPSHOT)
    }

    /// The snapshot (5.5): what the timestamp promised, signed, lists no older targets than before, not expired.
    pub fn update_snapshot(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let meta = self.snapshot_meta()?;
        let file = self.file_name(Role::Snapshot, meta.version);
        matches_meta(&file, bytes, meta, "timestamp.json")?; // 5.5.2
        let snapshot: Snapshot = self.read(Role::Snapshot, &file, bytes)?; // 5.5.3
        if snapshot.version != meta.version {
            let (got, want) = (snapshot.version, meta.version);
            return Err(Error::new(file, Problem::Version { got, want, by: "timestamp.json".into() })); // 5.5.4
        }
        for (name, before) in self.old_snapshot.iter().flat_map(|old| &old.meta) {
            let listed = snapshot.meta.get(name).ok_or_else(|| Error::new(&*file, Problem::Vanished(name.clone())))?;
            not_older(&file, name, listed.version, before.version)?; // 5.5.5
        }
        listed(&file, &snapshot.meta, TARGETS)?;
        self.check_expiry(&file, snapshot.expires)?; // 5.5.6
        self.snapshot = Some(snapshot);
        Ok(())
    }

    /// What the snapshot says of the targets.
    pub fn targets_meta(&self) -> Result<&MetaFile, Error> {
        let snapshot = self.snapshot.as_ref().ok_or_else(|| Error::new(SNAPSHOT, Problem::Missing))?;
        listed(SNAPSHOT, &snapshot.meta, TARGETS)
    }

    /// The targets (5.6): what the snapshot promised, signed, not expired.
    pub fn update_targets(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let meta = self.targets_meta()?;
        let file = self.file_name(Role::Targets, meta.version);
        matches_meta(&file, bytes, meta, SNAPSHOT)?; // 5.6.2
        let targets: Targets = self.read(Role::Targets, &file, bytes)?; // 5.6.3
        if targets.version != meta.version {
            let (got, want) = (targets.version, meta.version);
            return Err(Error::new(file, Problem::Version { got, want, by: SNAPSHOT.into() })); // 5.6.4
        }
        self.check_expiry(&file, targets.expires)?; // 5.6.5
        self.targets = Some(targets);
        Ok(())
    }

    /// The files that may be trusted; `None` before [`TrustedSet::update_targets`].
    pub fn targets(&self) -> Option<&BTreeMap<String, TargetFile>> {
        self.targets.as_ref().map(|targets| &targets.targets)
    }

    /// Name of a metadata file in the repository (section 6.2).
    pub fn file_name(&self, role: Role, version: u64) -> String {
        match self.root.consistent_snapshot {
            true => format!("{version}.{role}.json"),
            false => role.file_name(),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self, role: Role, file: &str, bytes: &[u8]) -> Result<T, Error> {
        let envelope = Envelope::parse(role, bytes).map_err(|error| Error::new(file, error))?;
        keys::verify(&self.root, role, file, &envelope)?;
        envelope.read().map_err(|error| Error::new(file, error))
    }

    fn check_expiry(&self, file: &str, expires: Time) -> Result<(), Error> {
        if expires <= self.now {
            return Err(Error::new(file, Problem::Expired { expires, now: self.now }));
        }
        Ok(())
    }
}

fn read_root(file: &str, bytes: &[u8]) -> Result<(Envelope, Root), Error> {
    let envelope = Envelope::parse(Role::Root, bytes).map_err(|error| Error::new(file, error))?;
    keys::check_key_ids(file, &envelope)?;
    let root = envelope.read().map_err(|error| Error::new(file, error))?;
    Ok((envelope, root))
}

fn listed<'a>(file: &str, meta: &'a BTreeMap<String, MetaFile>, name: &str) -> Result<&'a MetaFile, Error> {
    meta.get(name).ok_or_else(|| Error::new(file, Problem::NotListed(name.into())))
}

fn not_older(file: &str, what: &str, offered: u64, trusted: u64) -> Result<(), Error> {
    if offered < trusted {
        return Err(Error::new(file, Problem::Rollback { what: what.into(), offered, trusted }));
    }
    Ok(())
}

fn matches_meta(file: &str, bytes: &[u8], meta: &MetaFile, by: &str) -> Result<(), Error> {
    let wrong = |what| Error::new(file, Problem::Digest { what, by: by.into() });
    if meta.length.is_some_and(|length| length != bytes.len() as u64) {
        return Err(wrong("length"));
    }
    if meta.hashes.is_empty() {
        return Ok(());
    }
    // An algorithm that isn't known can't be checked; at least one has to be.
    match meta.hashes.get("sha256") {
        Some(hash) if *hash == keys::sha256_hex(bytes) => Ok(()),
        _ => Err(wrong("sha256")),
    }
}

#[cfg(test)]
#[path = "trusted_tests.rs"]
mod tests;
