//! The pure part of the client workflow (specification 1.0.x, section 5): bytes in, trust or refusal out.
//!
//! A [`TrustedSet`] begins with a root that is trusted out of band. Everything else has to come in order: newer roots,
//! one by one; then the timestamp; then the snapshot that it names; then the targets that the snapshot names, and roles
//! that these delegate to. Each step refuses what comes too early, so a caller can't skip one. Before the timestamp,
//! what was accepted in earlier refreshes is handed in ([`TrustedSet::remember`]): it guards against old versions.
//!
//! A refused file leaves the set as it was.

use std::collections::BTreeMap;

use keel_spec::tuf::{Delegations, Envelope, MetaFile, Metadata, Role, Root, Snapshot, TargetFile, Targets, Time};
use keel_spec::tuf::{Timestamp, encode};

use super::digests;
use super::error::{Error, Problem};
use super::keys::Keyring;

const SNAPSHOT: &str = "snapshot.json";
const TARGETS: &str = "targets.json";

/// What is trusted so far.
#[derive(Clone, Debug)]
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
    /// A key of timestamp or snapshot was taken back: what was accepted under it must be forgotten (5.3.11), or
    /// somebody who had stolen it could have locked this host out with an enormous version.
    pub forget: bool,
}

/// What became of a timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewTimestamp {
    /// It is newer than what was accepted before.
    Accepted,
    /// It has the version that was accepted before, which stays in force, whatever the new one says (5.4.3.1).
    Same,
}

impl TrustedSet {
    /// Begins with a root that is trusted because of where it came from (5.2). It must be signed by itself, which
    /// finds damage. `now` is the time that the whole refresh is held against (5.1).
    pub fn new(root: &[u8], now: Time) -> Result<Self, Error> {
        let file = "root.json";
        let (envelope, root) = read_root(file, root)?;
        keyring(&root, Role::Root, file)?.verify("root", file, &envelope)?;
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
        keyring(&self.root, Role::Root, &file)?.verify("root", &file, &envelope)?; // 5.3.4
        keyring(&root, Role::Root, &file)?.verify("root", &file, &envelope)?;
        let (got, trusted) = (root.version, self.root.version);
        if got <= trusted {
            return Err(Error::new(file, Problem::Rollback { what: "root".into(), offered: got, trusted }));
        }
        if got != trusted.saturating_add(1) {
            let problem = Problem::Version { got, want: trusted.saturating_add(1), by: "its name".into() };
            return Err(Error::new(file, problem)); // 5.3.5
        }
        let lost = |role| Some(Keyring::of(&self.root, role)?.lost_keys_to(&Keyring::of(&root, role)?));
        let forget = [Role::Timestamp, Role::Snapshot].into_iter().any(|role| lost(role).unwrap_or(true));
        if forget {
            self.old_timestamp = None;
            self.old_snapshot = None;
        }
        self.root = root;
        Ok(NewRoot { version: got, forget })
    }

    /// The newest root must not have expired (5.3.10).
    pub fn finish_root(&self) -> Result<(), Error> {
        self.check_expiry(&format!("{}.root.json", self.root.version), self.root.expires)
    }

    /// Takes what an earlier refresh accepted, if today's keys still vouch for it; says nothing otherwise, because
    /// files on this host's disk are no reason to refuse the repository's.
    pub fn remember(&mut self, timestamp: Option<&[u8]>, snapshot: Option<&[u8]>) {
        self.old_timestamp = timestamp.and_then(|bytes| self.read(Role::Timestamp, "timestamp.json", bytes).ok());
        self.old_snapshot = snapshot.and_then(|bytes| self.read(Role::Snapshot, SNAPSHOT, bytes).ok());
    }

    /// The timestamp (5.4): signed, not older than the one before, neither it nor the snapshot in it, not expired.
    pub fn update_timestamp(&mut self, bytes: &[u8]) -> Result<NewTimestamp, Error> {
        let file = "timestamp.json";
        self.finish_root()?;
        let new: Timestamp = self.read(Role::Timestamp, file, bytes)?; // 5.4.2
        let snapshot = listed(file, &new.meta, SNAPSHOT)?;
        let (timestamp, what) = match &self.old_timestamp {
            Some(old) if old.version == new.version => (old.clone(), NewTimestamp::Same),
            Some(old) => {
                not_older(file, "timestamp", new.version, old.version)?; // 5.4.3.1
                not_older(file, "snapshot", snapshot.version, listed(file, &old.meta, SNAPSHOT)?.version)?; // 5.4.3.2
                (new, NewTimestamp::Accepted)
            }
            None => (new, NewTimestamp::Accepted),
        };
        listed(file, &timestamp.meta, SNAPSHOT)?;
        self.check_expiry(file, timestamp.expires)?; // 5.4.4
        self.timestamp = Some(timestamp);
        Ok(what)
    }

    /// What the timestamp says of the snapshot.
    pub fn snapshot_meta(&self) -> Result<&MetaFile, Error> {
        let timestamp = self.timestamp.as_ref().ok_or_else(|| Error::new("timestamp.json", Problem::Missing))?;
        listed("timestamp.json", &timestamp.meta, SNAPSHOT)
    }

    /// The snapshot (5.5): what the timestamp promised, signed, lists no older targets than before, not expired.
    pub fn update_snapshot(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let meta = self.snapshot_meta()?;
        let file = self.file_name(Role::Snapshot.name(), meta.version);
        matches_meta(&file, bytes, meta, "timestamp.json")?; // 5.5.2
        let snapshot: Snapshot = self.read(Role::Snapshot, &file, bytes)?; // 5.5.3
        same_version(&file, snapshot.version, meta.version, "timestamp.json")?; // 5.5.4
        for (name, before) in self.old_snapshot.iter().flat_map(|old| &old.meta) {
            let listed = snapshot.meta.get(name).ok_or_else(|| Error::new(&*file, Problem::Vanished(name.clone())))?;
            not_older(&file, name, listed.version, before.version)?; // 5.5.5
        }
        listed(&file, &snapshot.meta, TARGETS)?;
        self.check_expiry(&file, snapshot.expires)?; // 5.5.6
        self.snapshot = Some(snapshot);
        Ok(())
    }

    /// What the snapshot says of the top-level targets or of a delegated role.
    pub fn targets_meta(&self, role: &str) -> Result<&MetaFile, Error> {
        let snapshot = self.snapshot.as_ref().ok_or_else(|| Error::new(SNAPSHOT, Problem::Missing))?;
        listed(SNAPSHOT, &snapshot.meta, &format!("{role}.json"))
    }

    /// The targets (5.6): what the snapshot promised, signed, not expired.
    pub fn update_targets(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let keys = keyring(&self.root, Role::Targets, TARGETS)?;
        self.targets = Some(self.read_targets(Role::Targets.name(), &keys, bytes)?);
        Ok(())
    }

    /// A role that another targets role delegates to (5.6.7.2.1): the same, with the keys that the other one lists.
    pub fn read_delegated(&self, parent: &Delegations, role: &str, bytes: &[u8]) -> Result<Targets, Error> {
        let delegated = parent.roles.iter().find(|known| known.name == role);
        let delegated = delegated.ok_or_else(|| Error::new(role, Problem::NoRole(role.into())))?;
        self.read_targets(role, &Keyring { keys: &parent.keys, role: &delegated.keys }, bytes)
    }

    fn read_targets(&self, role: &str, keys: &Keyring, bytes: &[u8]) -> Result<Targets, Error> {
        let meta = self.targets_meta(role)?;
        let file = self.file_name(role, meta.version);
        matches_meta(&file, bytes, meta, SNAPSHOT)?; // 5.6.2
        let targets: Targets = read(Role::Targets, role, keys, &file, bytes)?; // 5.6.3
        same_version(&file, targets.version, meta.version, SNAPSHOT)?; // 5.6.4
        self.check_expiry(&file, targets.expires)?; // 5.6.5
        Ok(targets)
    }

    /// The top-level targets; `None` before [`TrustedSet::update_targets`].
    pub fn top_level(&self) -> Option<&Targets> {
        self.targets.as_ref()
    }

    /// The files that the top-level targets list; `None` before [`TrustedSet::update_targets`].
    pub fn targets(&self) -> Option<&BTreeMap<String, TargetFile>> {
        self.targets.as_ref().map(|targets| &targets.targets)
    }

    /// Name of a metadata file in the repository (section 6.2).
    pub fn file_name(&self, role: &str, version: u64) -> String {
        let role = encode::segment(role);
        match self.root.consistent_snapshot {
            true => format!("{version}.{role}.json"),
            false => format!("{role}.json"),
        }
    }

    fn read<T: Metadata>(&self, role: Role, file: &str, bytes: &[u8]) -> Result<T, Error> {
        read(role, role.name(), &keyring(&self.root, role, file)?, file, bytes)
    }

    fn check_expiry(&self, file: &str, expires: Time) -> Result<(), Error> {
        if expires <= self.now {
            return Err(Error::new(file, Problem::Expired { expires, now: self.now }));
        }
        Ok(())
    }
}

fn read<T: Metadata>(role: Role, name: &str, keys: &Keyring, file: &str, bytes: &[u8]) -> Result<T, Error> {
    let envelope = Envelope::parse(role, bytes).map_err(|error| Error::new(file, error))?;
    keys.verify(name, file, &envelope)?;
    envelope.read().map_err(|error| Error::new(file, error))
}

fn read_root(file: &str, bytes: &[u8]) -> Result<(Envelope, Root), Error> {
    let envelope = Envelope::parse(Role::Root, bytes).map_err(|error| Error::new(file, error))?;
    let root = envelope.read().map_err(|error| Error::new(file, error))?;
    Ok((envelope, root))
}

fn keyring<'a>(root: &'a Root, role: Role, file: &str) -> Result<Keyring<'a>, Error> {
    Keyring::of(root, role).ok_or_else(|| Error::new(file, Problem::NoRole(role.to_string())))
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

fn same_version(file: &str, got: u64, want: u64, by: &str) -> Result<(), Error> {
    match got == want {
        true => Ok(()),
        false => Err(Error::new(file, Problem::Version { got, want, by: by.into() })),
    }
}

fn matches_meta(file: &str, bytes: &[u8], meta: &MetaFile, by: &str) -> Result<(), Error> {
    digests::check(bytes, meta.length, &meta.hashes)
        .map_err(|what| Error::new(file, Problem::Digest { what, by: by.into() }))
}

#[cfg(test)]
#[path = "trusted_tests.rs"]
mod tests;
