//! Folders that go with what they are for.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;

/// A folder that is removed with all below it when this value goes.
#[derive(Debug)]
pub struct Room {
    path: PathBuf,
    counter: AtomicU64,
}

impl Room {
    /// Makes a folder that isn't there, for its owner alone.
    pub fn make(path: PathBuf) -> Result<Self, Error> {
        use std::os::unix::fs::DirBuilderExt as _;
        let made = std::fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(Error::io(format!("making {}", path.display())))?;
        Ok(Self { path, counter: AtomicU64::new(0) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A further one in it.
    pub fn within(&self) -> Result<Self, Error> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        Self::make(self.path.join(format!("part-{number}")))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("{} stays until the next start: {error}", self.path.display());
        }
    }
}
