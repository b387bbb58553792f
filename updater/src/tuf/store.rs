//! Accepted metadata on disk, `ROLE.json` in one folder, and the roots that led to the newest one in `roots/`.
//!
//! Nothing here is trusted when it is read again: roots are walked anew from the one that the running release carries,
//! the others have to be signed by the root that this walk ends at. So a file that is torn, changed or gone costs a
//! download and no more.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keel_durable as durable;
use keel_spec::tuf::{Role, encode};

/// A folder of accepted metadata.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// In this folder, which is made if it isn't there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder.join("roots"))?;
        Ok(Self { folder: folder.into() })
    }

    fn root_path(&self, version: u64) -> PathBuf {
        self.folder.join("roots").join(format!("{version}.root.json"))
    }

    /// A root that was accepted, by its version.
    pub fn root(&self, version: u64) -> Option<Vec<u8>> {
        durable::read(&self.root_path(version), Role::Root.max_bytes()).ok()?
    }

    /// Keeps a root, which is the newest one now.
    pub fn put_root(&self, version: u64, bytes: &[u8]) -> io::Result<()> {
        durable::write(&self.root_path(version), bytes)?;
        self.put(Role::Root, bytes)
    }

    /// The file of a role that was accepted last.
    pub fn get(&self, role: Role) -> Option<Vec<u8>> {
        durable::read(&self.folder.join(role.file_name()), role.max_bytes()).ok()?
    }

    /// Keeps the file of a role.
    pub fn put(&self, role: Role, bytes: &[u8]) -> io::Result<()> {
        durable::write(&self.folder.join(role.file_name()), bytes)
    }

    fn delegated_path(&self, name: &str) -> Option<PathBuf> {
        Some(self.folder.join(format!("{}.json", encode::file_name(name)?)))
    }

    /// The file of a delegated role that was accepted last.
    pub fn delegated(&self, name: &str) -> Option<Vec<u8>> {
        durable::read(&self.delegated_path(name)?, Role::Targets.max_bytes()).ok()?
    }

    /// Keeps the file of a delegated role; one whose name is too long for a file is fetched anew each time.
    pub fn put_delegated(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.delegated_path(name).map_or(Ok(()), |path| durable::write(&path, bytes))
    }

    /// Forgets timestamp and snapshot (5.3.11).
    pub fn forget(&self) -> io::Result<()> {
        for role in [Role::Timestamp, Role::Snapshot] {
            durable::remove(&self.folder.join(role.file_name()))?;
        }
        Ok(())
    }
}
