//! The folders of complete layers, and those in the making.
//!
//! `layers/<diff id>/fs` is a layer's tree and `layers/<diff id>/layer.json` what is known of it. Both appear by one
//! rename, after the file system has been synced: a layer is complete or absent. `tmp/` is emptied at the start.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use keel_durable as durable;
use rustix::fs::{Mode, OFlags, open, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::assemble::Assembled;
use super::unpack::{self, Measured};
use crate::digest::Digest;
use crate::error::Error;

/// Longest `layer.json`.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// What is known of a layer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Record {
    size_bytes: u64,
    /// Length of the archive that the recipe makes; `None`: unpacked by a release that wrote no recipe.
    #[serde(default)]
    archive_bytes: Option<u64>,
}

/// The layers of a store.
#[derive(Debug)]
pub struct Depot {
    layers: PathBuf,
    temporary: PathBuf,
    counter: AtomicU64,
}

/// A layer that is unpacked but not committed; goes away with this value.
#[derive(Debug)]
pub struct Unpacked {
    /// What was found out.
    pub measured: Measured,
    folder: Scratch,
}

#[derive(Debug)]
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::warn!("{} stays until the next start: {error}", self.0.display());
        }
    }
}

impl Depot {
    /// Opens the layers below a folder and empties `tmp/`.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let depot = Self { layers: root.join("layers"), temporary: root.join("tmp"), counter: AtomicU64::new(0) };
        match std::fs::remove_dir_all(&depot.temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("clearing", &depot.temporary)(error));
            }
            _ => {}
        }
        for folder in [&depot.layers, &depot.temporary] {
            std::fs::create_dir_all(folder).map_err(Error::io("making folder", folder))?;
            rustix::fs::chmod(folder, Mode::RWXU).map_err(|e| Error::io("protecting", folder)(e.into()))?;
        }
        durable::sync_folder(root).map_err(Error::io("syncing folder", root))?;
        Ok(depot)
    }

    /// Whether a layer is here.
    pub fn has(&self, diff_id: &Digest) -> bool {
        self.folder(diff_id).join("layer.json").exists()
    }

    /// Bytes of a layer's files; 0 if it isn't here.
    pub fn size_bytes(&self, diff_id: &Digest) -> u64 {
        self.record(diff_id).map_or(0, |record| record.size_bytes)
    }

    /// The archive of a layer, as it was, and its length. Its reader has to check the digest.
    pub fn archive(&self, diff_id: &Digest) -> Result<(Assembled, u64), Error> {
        let folder = self.folder(diff_id);
        let length = self.record(diff_id).and_then(|record| record.archive_bytes).ok_or_else(|| Error::Invalid {
            what: format!("layer {diff_id}"),
            reason: "an older release unpacked it without noting how its archive was made; pull the image again".into(),
        })?;
        Ok((Assembled::open(&folder).map_err(Error::io("opening the recipe of", &folder))?, length))
    }

    fn record(&self, diff_id: &Digest) -> Option<Record> {
        let bytes = durable::read(&self.folder(diff_id).join("layer.json"), MAX_RECORD_BYTES).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// A layer's tree.
    pub fn tree(&self, diff_id: &Digest) -> PathBuf {
        self.folder(diff_id).join("fs")
    }

    /// Unpacks a stream into a layer in the making.
    pub fn unpack(&self, label: &str, stream: &mut dyn Read) -> Result<Unpacked, Error> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let folder = Scratch(self.temporary.join(format!("layer-{number}")));
        let tree = folder.0.join("fs");
        std::fs::create_dir_all(&tree).map_err(Error::io("making folder", &tree))?;
        // Not every archive has an entry for its root.
        rustix::fs::chmod(&tree, Mode::from_raw_mode(0o755)).map_err(|e| Error::io("opening up", &tree)(e.into()))?;
        let recipe = folder.0.join("recipe");
        let recipe = File::create(&recipe).map_err(Error::io("making", &recipe))?;
        let measured = unpack::unpack(open_folder(&folder.0)?, recipe, label, stream)?;
        let record = Record { size_bytes: measured.size_bytes, archive_bytes: Some(measured.archive_bytes) };
        let path = folder.0.join("layer.json");
        let json = serde_json::to_vec(&record).map_err(|e| Error::io("writing", &path)(e.into()))?;
        std::fs::write(&path, json).map_err(Error::io("writing", &path))?;
        Ok(Unpacked { measured, folder })
    }

    /// Makes layers complete, in one go: one sync serves all.
    pub fn commit(&self, unpacked: Vec<Unpacked>) -> Result<(), Error> {
        if unpacked.is_empty() {
            return Ok(());
        }
        let temporary = open_folder(&self.temporary)?;
        syncfs(&temporary).map_err(|error| Error::io("syncing", &self.temporary)(error.into()))?;
        for layer in &unpacked {
            let target = self.folder(&layer.measured.diff_id);
            match rustix::fs::rename(&layer.folder.0, &target) {
                // Someone else was quicker with the same content.
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(Error::io("completing layer", &target)(error.into())),
            }
        }
        durable::sync_folder(&self.layers).map_err(Error::io("syncing folder", &self.layers))
    }

    /// Removes a layer: first out of sight by one rename, then its files.
    pub fn remove(&self, diff_id: &Digest) -> Result<(), Error> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let folder = self.folder(diff_id);
        let scratch = Scratch(self.temporary.join(format!("removed-{number}")));
        match std::fs::rename(&folder, &scratch.0) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("removing layer", &folder))?,
        }
        durable::sync_folder(&self.layers).map_err(Error::io("syncing folder", &self.layers))
    }

    /// All layers that are here. Names that are no digest are passed over.
    pub fn all(&self) -> Result<Vec<Digest>, Error> {
        let entries = std::fs::read_dir(&self.layers).map_err(Error::io("listing", &self.layers))?;
        Ok(entries.filter_map(|entry| Digest::from_hex(entry.ok()?.file_name().to_str()?).ok()).collect())
    }

    fn folder(&self, diff_id: &Digest) -> PathBuf {
        self.layers.join(diff_id.hex())
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io("opening", path)(error.into()))
}
