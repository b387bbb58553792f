//! The client workflow of section 5: fetches metadata in order, and stores what was accepted.

use std::io;

use keel_spec::tuf::{Role, Time};

use super::error::{Error, Problem};
use super::keys;
use super::store::Store;
use super::trusted::TrustedSet;
use crate::source::Source;

/// Most roots that are walked in one refresh (5.3.3: "Y", the client's choice).
const MAX_ROOTS: u64 = 256;

/// A client of one repository.
pub struct Client<'a> {
    /// Where files come from.
    pub source: &'a dyn Source,
    /// What was accepted before.
    pub store: &'a Store,
    /// The root that the running release carries.
    pub trusted_root: &'a [u8],
}

impl Client<'_> {
    /// Fetches and checks the repository's metadata against the time given, and returns what can be trusted.
    pub fn refresh(&self, now: Time) -> Result<TrustedSet, Error> {
        let mut set = TrustedSet::new(self.trusted_root, now)?;
        self.walk_roots(&mut set)?;
        set.finish_root()?;
        set.remember(self.store.get(Role::Timestamp).as_deref(), self.store.get(Role::Snapshot).as_deref());

        let timestamp = self.fetch("timestamp.json", Role::Timestamp.max_bytes())?;
        set.update_timestamp(&timestamp)?;
        self.keep(Role::Timestamp, &timestamp)?;

        let meta = set.snapshot_meta()?;
        let snapshot = self.current(&set, Role::Snapshot, meta.version, meta.length, meta.hashes.get("sha256"))?;
        set.update_snapshot(&snapshot)?;
        self.keep(Role::Snapshot, &snapshot)?;

        let meta = set.targets_meta()?;
        let targets = self.current(&set, Role::Targets, meta.version, meta.length, meta.hashes.get("sha256"))?;
        set.update_targets(&targets)?;
        self.keep(Role::Targets, &targets)?;
        Ok(set)
    }

    /// 5.3: from the running release's root, over those accepted before, to the repository's newest.
    fn walk_roots(&self, set: &mut TrustedSet) -> Result<(), Error> {
        for _ in 0..MAX_ROOTS {
            let next = set.root().version.saturating_add(1);
            // A root on disk that isn't accepted is torn or not ours: the repository's is asked for instead.
            if self.store.root(next).is_some_and(|bytes| set.update_root(&bytes).is_ok()) {
                continue;
            }
            let file = format!("{next}.root.json");
            let Some(bytes) = self.source.small(&file, Role::Root.max_bytes()).map_err(|e| fetch_error(&file, e))?
            else {
                return Ok(());
            };
            let new = set.update_root(&bytes)?;
            // Forgotten before the root is kept: a power cut between the two repeats the walk, and forgets again.
            if new.forget {
                self.store.forget().map_err(|error| Error::new("timestamp.json", Problem::Store(error.to_string())))?;
            }
            self.store
                .put_root(new.version, &bytes)
                .map_err(|error| Error::new(file, Problem::Store(error.to_string())))?;
        }
        Err(Error::new("root.json", Problem::Fetch(format!("more than {MAX_ROOTS} newer roots are offered"))))
    }

    /// The file on disk if it is the one promised, otherwise the repository's.
    fn current(
        &self,
        set: &TrustedSet,
        role: Role,
        version: u64,
        length: Option<u64>,
        sha256: Option<&String>,
    ) -> Result<Vec<u8>, Error> {
        if let (Some(kept), Some(sha256)) = (self.store.get(role), sha256)
            && keys::sha256_hex(&kept) == *sha256
        {
            return Ok(kept);
        }
        // 5.5.1, 5.6.1: no more than the length promised.
        self.fetch(&set.file_name(role, version), length.unwrap_or(u64::MAX).min(role.max_bytes()))
    }

    fn fetch(&self, file: &str, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let bytes = self.source.small(file, max_bytes).map_err(|error| fetch_error(file, error))?;
        bytes.ok_or_else(|| Error::new(file, Problem::Missing))
    }

    fn keep(&self, role: Role, bytes: &[u8]) -> Result<(), Error> {
        if self.store.get(role).as_deref() == Some(bytes) {
            return Ok(());
        }
        self.store.put(role, bytes).map_err(|error| Error::new(role.file_name(), Problem::Store(error.to_string())))
    }
}

fn fetch_error(file: &str, error: io::Error) -> Error {
    Error::new(file, Problem::Fetch(crate::failure::chain(&error)))
}
