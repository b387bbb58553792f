//! Accepted metadata on disk. Nothing here is trusted when it is read again: roots are walked anew from the one that
//! the running release carries, the others have to be signed by the root that this walk ends at.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keel_durable as durable;
use keel_spec::tuf::Role;

/// A folder of accepted metadata.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// In this folder, which is made if it isn't there.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.into() })
    }

    /// A root that was accepted, by its version.
    pub fn root(&self, version: u64) -> Option<Vec<u8>> {
        durable::read(&self.folder.join(format!("{version}.root.json")), Role::Root.max_bytes()).ok()?
    }

    /// Keeps a root.
    pub fn put_root(&self, version: u64, bytes: &[u8]) -> io::Result<()> {
        durable::write(&self.folder.join(format!("{version}.root.json")), bytes)
    }

    /// The file of a role that was accepted last.
    pub fn get(&self, role: Role) -> Option<Vec<u8>> {
        durable::read(&self.folder.join(role.file_name()), role.max_bytes()).ok()?
    }

    /// Keeps the file of a role.
    pub fn put(&self, role: Role, bytes: &[u8]) -> io::Result<()> {
        durable::write(&self.folder.join(role.file_name()), bytes)
    }

    /// Forgets timestamp and snapshot (5.3.11).
    pub fn forget(&self) -> io::Result<()> {
        for role in [Role::Timestamp, Role::Snapshot] {
            durable::remove(&self.folder.join(role.file_name()))?;
        }
        Ok(())
    }
}
