//! Descriptions of releases, kept as they were signed: peers may want that of the running one.
//!
//! Nothing here is trusted when it is read again: what is served is held against the signed metadata first. A file that
//! is torn or gone only isn't served.

use std::fs;
use std::path::{Path, PathBuf};

use keel_durable as durable;
use keel_spec::release::Version;

/// Largest release description.
pub const MAX_BYTES: u64 = 64 << 10;
/// Most that are kept.
const MAX_KEPT: usize = 8;

/// A folder of descriptions.
#[derive(Debug)]
pub struct Descriptions(PathBuf);

impl Descriptions {
    /// In a folder, which needn't be there yet.
    pub fn new(folder: &Path) -> Self {
        Self(folder.into())
    }

    fn path(&self, version: &Version) -> PathBuf {
        self.0.join(format!("{version}.json"))
    }

    /// That of a release, if it is kept.
    pub fn get(&self, version: &Version) -> Option<Vec<u8>> {
        durable::read(&self.path(version), MAX_BYTES).ok()?
    }

    /// Keeps that of a release, beside that of the running one. What fails costs nothing but a line in the log.
    pub fn keep(&self, version: &Version, bytes: &[u8], running: &Version) {
        if self.get(version).as_deref() == Some(bytes) {
            return;
        }
        let kept = fs::create_dir_all(&self.0)
            .and_then(|()| self.make_room(running))
            .and_then(|()| durable::write(&self.path(version), bytes));
        kept.unwrap_or_else(|error| log::warn!("keep the description of {version}: {error}"));
    }

    fn make_room(&self, running: &Version) -> std::io::Result<()> {
        let all: Vec<PathBuf> = fs::read_dir(&self.0)?.flatten().map(|entry| entry.path()).collect();
        let spare = all.iter().filter(|path| **path != self.path(running));
        spare.take((all.len() + 1).saturating_sub(MAX_KEPT)).try_for_each(fs::remove_file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_kept_and_that_of_the_running_release_stays() {
        let folder = std::env::temp_dir().join(format!("keel-updater-descriptions-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let (kept, running) = (Descriptions::new(&folder), "1.0.0".parse().unwrap());
        assert_eq!(kept.get(&running), None);
        kept.keep(&running, b"{}", &running);
        for minor in 1..30 {
            let version: Version = format!("1.{minor}.0").parse().unwrap();
            kept.keep(&version, b"[]", &running);
            assert_eq!(kept.get(&version).as_deref(), Some(&b"[]"[..]));
        }
        assert_eq!(kept.get(&running).as_deref(), Some(&b"{}"[..]));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), MAX_KEPT);
        fs::remove_dir_all(folder).unwrap();
    }
}
