//! The client workflow of section 5: fetches metadata in order, and stores what was accepted.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keel_spec::tuf::{DelegatedRole, Delegations, MetaFile, Role, TargetFile, Targets, Time};

use super::error::{Error, Problem};
use super::keys;
use super::store::Store;
use super::trusted::{NewTimestamp, TrustedSet};
use crate::source::Source;

/// Most roots that are fetched in one refresh (5.3.3: "Y", the client's choice); the next refresh goes on from there.
pub const MAX_ROOTS: u64 = 256;
/// Most roots that are read from this host's disk.
const MAX_KEPT_ROOTS: u64 = 4096;
/// Most delegated roles that are asked for one target (5.6.7.1: "Z").
pub const MAX_DELEGATED: usize = 64;

/// Longest that one metadata file may take, however steadily its bytes trickle in.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A client of one repository.
pub struct Client<'a> {
    /// Where metadata comes from.
    pub source: &'a dyn Source,
    /// What was accepted before.
    pub store: &'a Store,
    /// The root that is trusted out of band: the one that the running release carries.
    pub trusted_root: &'a [u8],
    /// Longest that one file may take; [`PATIENCE`].
    pub patience: Duration,
}

impl Client<'_> {
    /// Fetches and checks the repository's metadata against the time given, and returns what can be trusted. What was
    /// accepted stays accepted if a later file is refused.
    pub fn refresh(&self, now: Time) -> Result<TrustedSet, Error> {
        let mut set = TrustedSet::new(self.trusted_root, now)?;
        self.walk_roots(&mut set)?;
        set.finish_root()?;
        set.remember(self.store.get(Role::Timestamp).as_deref(), self.store.get(Role::Snapshot).as_deref());

        let timestamp = self.fetch("timestamp.json", Role::Timestamp.max_bytes())?;
        let timestamp = timestamp.ok_or_else(|| Error::new("timestamp.json", Problem::Missing))?;
        if set.update_timestamp(&timestamp)? == NewTimestamp::Accepted {
            self.keep(Role::Timestamp, &timestamp)?;
        }
        // What is on the disk already passes the same checks as what is fetched, so nothing is fetched twice.
        if self.store.get(Role::Snapshot).is_none_or(|kept| set.update_snapshot(&kept).is_err()) {
            let snapshot = self.fetch_listed(&set, Role::Snapshot, "snapshot", set.snapshot_meta()?)?;
            set.update_snapshot(&snapshot)?;
            self.keep(Role::Snapshot, &snapshot)?;
        }
        if self.store.get(Role::Targets).is_none_or(|kept| set.update_targets(&kept).is_err()) {
            let targets = self.fetch_listed(&set, Role::Targets, "targets", set.targets_meta("targets")?)?;
            set.update_targets(&targets)?;
            self.keep(Role::Targets, &targets)?;
        }
        Ok(set)
    }

    /// What the last refresh accepted, from this host's disk alone and however old it is: it tells whether a file was
    /// published, not whether it is the newest.
    pub fn kept(store: &Store, trusted_root: &[u8]) -> Result<TrustedSet, Error> {
        let mut set = TrustedSet::new(trusted_root, Time(0))?;
        walk_kept_roots(store, &mut set);
        let file = |role: Role| store.get(role).ok_or_else(|| Error::new(role.file_name(), Problem::Missing));
        set.update_timestamp(&file(Role::Timestamp)?)?;
        set.update_snapshot(&file(Role::Snapshot)?)?;
        set.update_targets(&file(Role::Targets)?)?;
        Ok(set)
    }

    /// 5.3: from the root that is trusted anyway, over those accepted before, to the repository's newest.
    fn walk_roots(&self, set: &mut TrustedSet) -> Result<(), Error> {
        let newest = walk_kept_roots(self.store, set);
        self.keep(Role::Root, newest.as_deref().unwrap_or(self.trusted_root))?;
        for _ in 0..MAX_ROOTS {
            let file = format!("{}.root.json", set.root().version.saturating_add(1));
            let Some(bytes) = self.fetch(&file, Role::Root.max_bytes())? else { return Ok(()) };
            let new = set.update_root(&bytes)?;
            let failed = |what: &str, error: io::Error| Error::new(what, Problem::Store(error.to_string()));
            // Forgotten before the root is kept: a power cut between the two repeats the walk, and forgets again.
            if new.forget {
                self.store.forget().map_err(|error| failed("timestamp.json", error))?;
            }
            self.store.put_root(new.version, &bytes).map_err(|error| failed(&file, error))?;
        }
        Ok(())
    }

    /// Looks a target up: in the top-level targets, then in the roles that these delegate to, before those after them
    /// (5.6.7: pre-order, depth first). `None`: nobody who is trusted with that name lists it.
    pub fn find(&self, set: &TrustedSet, target: &str) -> Result<Option<TargetFile>, Error> {
        let sha256 = keys::sha256_hex(target.as_bytes());
        let Some(top) = set.top_level() else { return Err(Error::new("targets.json", Problem::Missing)) };
        let mut visited = BTreeSet::new();
        let mut waiting: Vec<(Arc<Delegations>, String)> = Vec::new();
        let mut current = Arc::new(top.clone());
        loop {
            if let Some(found) = current.targets.get(target) {
                return Ok(Some(found.clone()));
            }
            if let Some(delegations) = &current.delegations {
                let delegations = Arc::new(delegations.clone());
                let (children, terminated) = relevant(&delegations, target, &sha256);
                if terminated {
                    waiting.clear(); // 5.6.7.2.2: nobody else is asked.
                }
                waiting.extend(children.iter().rev().map(|role| (Arc::clone(&delegations), role.name.clone())));
            }
            // 5.6.7.1: a role that was visited isn't again, which ends cycles.
            let (parent, role) = loop {
                match waiting.pop() {
                    None => return Ok(None),
                    Some((parent, role)) if !visited.contains(&role) => break (parent, role),
                    Some(_) => {}
                }
            };
            if visited.len() == MAX_DELEGATED {
                let why = format!("more than {MAX_DELEGATED} delegated roles would have to be asked for {target}");
                return Err(Error::new("targets.json", Problem::Fetch(why)));
            }
            current = Arc::new(self.delegated(set, &parent, &role)?);
            visited.insert(role);
        }
    }

    fn delegated(&self, set: &TrustedSet, parent: &Delegations, role: &str) -> Result<Targets, Error> {
        let kept = self.store.delegated(role);
        if let Some(targets) = kept.and_then(|kept| set.read_delegated(parent, role, &kept).ok()) {
            return Ok(targets);
        }
        let bytes = self.fetch_listed(set, Role::Targets, role, set.targets_meta(role)?)?;
        let targets = set.read_delegated(parent, role, &bytes)?;
        let kept = self.store.put_delegated(role, &bytes);
        kept.map_err(|error| Error::new(format!("{role}.json"), Problem::Store(error.to_string())))?;
        Ok(targets)
    }

    /// A file that another one lists: no more than the length promised (5.5.1, 5.6.1).
    fn fetch_listed(&self, set: &TrustedSet, kind: Role, role: &str, meta: &MetaFile) -> Result<Vec<u8>, Error> {
        let most = meta.length.unwrap_or(u64::MAX).min(kind.max_bytes());
        let file = set.file_name(role, meta.version);
        self.fetch(&file, most)?.ok_or_else(|| Error::new(file, Problem::Missing))
    }

    /// A file of at most so many bytes; `None`: there is none.
    fn fetch(&self, file: &str, max_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
        let began = Instant::now();
        let opened = self.source.open(file, &[], max_bytes).map_err(|error| fetch_error(file, error))?;
        let Some(opened) = opened else { return Ok(None) };
        let (mut body, mut bytes) = (opened.body, Vec::new());
        let mut buffer = [0; 16 << 10];
        loop {
            let count = match body.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(fetch_error(file, error)),
            };
            bytes.extend_from_slice(&buffer[..count]);
            let too_long = bytes.len() as u64 > max_bytes;
            if too_long || began.elapsed() > self.patience {
                let why = match too_long {
                    true => format!("longer than {max_bytes} bytes"),
                    false => format!("{} bytes came in {} s: too slow", bytes.len(), self.patience.as_secs()),
                };
                return Err(Error::new(file, Problem::Fetch(why)));
            }
            if count == 0 {
                return Ok(Some(bytes));
            }
        }
    }

    fn keep(&self, role: Role, bytes: &[u8]) -> Result<(), Error> {
        if self.store.get(role).as_deref() == Some(bytes) {
            return Ok(());
        }
        self.store.put(role, bytes).map_err(|error| Error::new(role.file_name(), Problem::Store(error.to_string())))
    }
}

/// Over the roots that were accepted before; returns the newest, if there is one.
fn walk_kept_roots(store: &Store, set: &mut TrustedSet) -> Option<Vec<u8>> {
    let mut newest = None;
    for _ in 0..MAX_KEPT_ROOTS {
        // A root on disk that isn't accepted is torn or not ours: the repository's is asked for instead.
        match store.root(set.root().version.saturating_add(1)) {
            Some(bytes) if set.update_root(&bytes).is_ok() => newest = Some(bytes),
            _ => break,
        }
    }
    newest
}

/// The roles that are trusted with a target, and whether the last of them ends the search.
fn relevant<'a>(delegations: &'a Delegations, target: &str, sha256: &str) -> (Vec<&'a DelegatedRole>, bool) {
    let mut children = Vec::new();
    for role in delegations.roles.iter().filter(|role| role.covers(target, sha256)) {
        children.push(role);
        if role.terminating {
            return (children, true);
        }
    }
    (children, false)
}

fn fetch_error(file: &str, error: io::Error) -> Error {
    Error::new(file, Problem::Fetch(crate::failure::chain(&error)))
}
