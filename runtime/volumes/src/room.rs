//! Volumes are made, found and removed. Each is a folder with its files under `_data` and what is known of it in
//! `volume.json`; one without the latter is a plain one that an earlier release has made.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::system;
use crate::volume::{self, Spec, Volume};
use crate::{Error, source};

/// Longest file that is read back.
const MAX_BYTES: u64 = 1 << 20;
/// Most volumes.
const MAX_VOLUMES: usize = 65_536;
/// Begins the names of folders of volumes that are gone.
const REMOVED: &str = ".removed-";

/// All volumes. All methods may be called from any thread.
#[derive(Debug)]
pub struct Volumes {
    folder: PathBuf,
    /// Held while one is made, filled or removed.
    lock: Mutex<()>,
}

impl Volumes {
    /// Those in a folder, which is there. What an end of this program left half removed goes now.
    pub fn open(folder: &Path) -> Self {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(REMOVED)
                && let Err(e) = fs::remove_dir_all(entry.path())
            {
                log::error!("{}: can't be removed: {e}", entry.path().display());
            }
        }
        Self { folder: folder.into(), lock: Mutex::default() }
    }

    /// Makes a volume, or finds the one that is like it.
    pub fn create(&self, spec: Spec) -> Result<Volume, Error> {
        volume::check(&spec)?;
        let _held = self.hold();
        if let Ok(found) = self.get(&spec.name) {
            if !spec.options.is_empty() && spec.options != found.options {
                return Err(Error::Conflict(format!(
                    "create {0}: conflict: volume name must be unique: a volume named {0} exists with other options",
                    spec.name
                )));
            }
            return Ok(found);
        }
        if fs::read_dir(&self.folder).map_or(0, Iterator::count) >= MAX_VOLUMES {
            return Err(Error::Conflict(format!("there are {MAX_VOLUMES} volumes already; remove some")));
        }
        let Spec { name, options, labels, .. } = spec;
        let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let made = Volume { name, created_unix_ms: u64::try_from(since).unwrap_or(0), options, labels };
        let folder = self.folder.join(&made.name);
        let make = || -> io::Result<()> {
            fs::create_dir_all(folder.join("_data"))?;
            keel_durable::write_json(&folder.join("volume.json"), &made)?;
            keel_durable::sync_folder(&self.folder)
        };
        make().map_err(system(&made.name, "make it"))?;
        Ok(made)
    }

    /// The volume of a name.
    pub fn get(&self, name: &str) -> Result<Volume, Error> {
        let missing = || Error::NotFound(name.chars().take(80).collect());
        volume::check_name(name).map_err(|_| missing())?;
        let folder = self.folder.join(name);
        let data = fs::metadata(folder.join("_data")).map_err(|_| missing())?;
        let stored = keel_durable::read_json::<Volume>(&folder.join("volume.json"), MAX_BYTES);
        let mut volume = stored.map_err(system(name, "read what is known of it"))?.value().unwrap_or_default();
        volume.name = name.into();
        if volume.created_unix_ms == 0 {
            let made = data.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            volume.created_unix_ms = made.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
        }
        Ok(volume)
    }

    /// All volumes, by name.
    pub fn list(&self) -> Vec<Volume> {
        let names = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let found = names.filter_map(|entry| self.get(entry.file_name().to_str()?).ok());
        let mut all: Vec<Volume> = found.collect();
        all.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

    /// Removes a volume with all that is in it. That nobody uses it is the caller's to know.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let volume = self.get(name)?;
        let _held = self.hold();
        source::release(&volume, &self.mountpoint(name)).map_err(system(name, "unmount it"))?;
        // From the renaming on there is no such volume; what is left of it goes at the next start.
        let aside = self.folder.join(format!("{REMOVED}{name}"));
        fs::rename(self.folder.join(name), &aside).map_err(system(name, "move it aside"))?;
        keel_durable::sync_folder(&self.folder).map_err(system(name, "remove it"))?;
        if let Err(e) = fs::remove_dir_all(&aside) {
            log::error!("volume {name}: not all of it can be removed before the next start: {e}");
        }
        Ok(())
    }

    /// Where clients are told that a volume is.
    pub fn mountpoint(&self, name: &str) -> PathBuf {
        self.folder.join(name).join("_data")
    }

    /// Where its files are; what has to be mounted for that is.
    pub fn source(&self, name: &str) -> Result<PathBuf, Error> {
        let volume = self.get(name)?;
        let _held = self.hold();
        source::prepare(&volume, &self.mountpoint(name))
    }

    pub(crate) fn hold(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> Spec {
        Spec { name: name.into(), labels: [("a".into(), "b".into())].into(), ..Spec::default() }
    }

    #[test]
    fn volumes_are_made_once_and_removed_whole() {
        let folder = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(folder.path());
        let made = volumes.create(spec("data")).unwrap();
        fs::write(volumes.source("data").unwrap().join("file"), "x").unwrap();
        assert_eq!(volumes.create(Spec { name: "data".into(), ..Spec::default() }).unwrap(), made);
        let other = Spec { options: [("type".into(), "tmpfs".into())].into(), ..spec("data") };
        assert!(matches!(volumes.create(other), Err(Error::Conflict(_))));
        assert_eq!(Volumes::open(folder.path()).list(), [made]);
        volumes.remove("data").unwrap();
        assert!(matches!(volumes.get("data"), Err(Error::NotFound(_))));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn plain_ones_of_releases_before_are_found_and_half_removed_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("old/_data")).unwrap();
        fs::create_dir_all(folder.path().join(".removed-x/_data")).unwrap();
        let volumes = Volumes::open(folder.path());
        assert_eq!(volumes.list().iter().map(|v| v.name.as_str()).collect::<Vec<_>>(), ["old"]);
        assert!(volumes.list()[0].created_unix_ms > 0 && !folder.path().join(".removed-x").exists());
        assert!(volumes.get("../old").is_err());
    }
}
