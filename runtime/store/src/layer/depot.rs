//! What is kept of layers, and layers in the making.
//!
//! `recipes/<diff id>/` holds `recipe` (how the layer's archive is put together), `objects` (which ones it has) and
//! `layer.json` (what else is known of it). The folder appears by one rename, after the file system has been synced
//! and the objects have moved to their place: a layer is complete or absent. `tmp/` is emptied at the start.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use keel_durable as durable;
use rustix::fs::{Mode, OFlags, open, syncfs};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::assemble::Assembled;
use super::unpack::{self, Measured};
use crate::digest::{Digest, ObjectId};
use crate::error::Error;
use crate::objects::{Object, Objects, read_list, write_list};

/// Longest `layer.json`.
const MAX_RECORD_BYTES: u64 = 64 * 1024;

/// What is known of a layer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Record {
    size_bytes: u64,
    /// Length of the archive that the recipe makes.
    archive_bytes: u64,
}

/// The layers of a store.
#[derive(Debug)]
pub struct Depot {
    /// All files of all layers.
    pub objects: Objects,
    recipes: PathBuf,
    temporary: PathBuf,
    counter: AtomicU64,
    /// Held while layers appear with their objects, and while objects are removed that no layer has.
    order: Mutex<()>,
}

/// A layer that is unpacked but not committed; goes away with this value.
#[derive(Debug)]
pub struct Unpacked {
    /// What was found out.
    pub measured: Measured,
    objects: Vec<Object>,
    scratch: Scratch,
}

/// A layer that is out of sight; its objects go with [`Depot::forget`].
pub struct Removed {
    objects: Vec<Object>,
    _scratch: Scratch,
}

/// A folder that goes away with this value.
#[derive(Debug)]
pub struct Scratch(pub PathBuf);

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
    /// Opens the layers below a folder. What a crash left in `tmp/` stays until [`Depot::clear`].
    pub fn open(root: &Path) -> Result<Self, Error> {
        let depot = Self {
            objects: Objects::new(root),
            recipes: root.join("recipes"),
            temporary: root.join("tmp"),
            counter: AtomicU64::new(0),
            order: Mutex::default(),
        };
        for folder in [&depot.recipes, &depot.temporary, depot.objects.folder()] {
            std::fs::create_dir_all(folder).map_err(Error::io("making folder", folder))?;
            rustix::fs::chmod(folder, Mode::RWXU).map_err(|e| Error::io("protecting", folder)(e.into()))?;
        }
        durable::sync_folder(root).map_err(Error::io("syncing folder", root))?;
        Ok(depot)
    }

    /// Clears away what a crash left unfinished: objects that no layer has, then scratch folders. Nothing else must
    /// have been begun.
    pub fn clear(&self) -> Result<(), Error> {
        let mut left = std::fs::read_dir(&self.temporary).map_err(Error::io("listing", &self.temporary))?;
        if left.next().is_none() {
            return Ok(());
        }
        self.collect(self.objects.all()?)?;
        std::fs::remove_dir_all(&self.temporary).map_err(Error::io("clearing", &self.temporary))?;
        std::fs::create_dir(&self.temporary).map_err(Error::io("making folder", &self.temporary))?;
        rustix::fs::chmod(&self.temporary, Mode::RWXU)
            .map_err(|error| Error::io("protecting", &self.temporary)(error.into()))
    }

    /// Whether a layer is here.
    pub fn has(&self, diff_id: &Digest) -> bool {
        self.folder(diff_id).join("layer.json").exists()
    }

    /// Bytes of a layer's files; 0 if it isn't here.
    pub fn size_bytes(&self, diff_id: &Digest) -> u64 {
        self.record(diff_id).map_or(0, |record| record.size_bytes)
    }

    /// Bytes that a layer takes beside its objects.
    pub fn own_bytes(&self, diff_id: &Digest) -> u64 {
        let folder = self.folder(diff_id);
        let length = |name: &str| folder.join(name).metadata().map_or(0, |metadata| metadata.len());
        length("recipe") + length("objects")
    }

    /// Hands on each object of a layer.
    pub fn each_object(&self, diff_id: &Digest, each: impl FnMut(Object)) -> Result<(), Error> {
        let path = self.folder(diff_id).join("objects");
        read_list(&path, each).map_err(Error::io("reading", &path))
    }

    /// The archive of a layer, as it was, and its length. Its reader has to check the digest.
    pub fn archive(&self, diff_id: &Digest) -> Result<(Assembled, u64), Error> {
        let folder = self.folder(diff_id);
        let record = self.record(diff_id).ok_or_else(|| Error::Invalid {
            what: format!("layer {diff_id}"),
            reason: "what is kept of it is damaged; remove its images and pull them again".into(),
        })?;
        let archive = Assembled::open(&folder.join("recipe"), self.objects.folder());
        Ok((archive.map_err(Error::io("opening the recipe of", &folder))?, record.archive_bytes))
    }

    /// The recipe of a layer.
    pub fn recipe(&self, diff_id: &Digest) -> PathBuf {
        self.folder(diff_id).join("recipe")
    }

    fn record(&self, diff_id: &Digest) -> Option<Record> {
        let bytes = durable::read(&self.folder(diff_id).join("layer.json"), MAX_RECORD_BYTES).ok()??;
        serde_json::from_slice(&bytes).ok()
    }

    /// A scratch folder.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let scratch = Scratch(self.temporary.join(number.to_string()));
        std::fs::create_dir(&scratch.0).map_err(Error::io("making folder", &scratch.0))?;
        Ok(scratch)
    }

    /// Unpacks a stream into a layer in the making.
    pub fn unpack(&self, label: &str, stream: &mut dyn Read) -> Result<Unpacked, Error> {
        let scratch = self.scratch()?;
        let layer = scratch.0.join("layer");
        std::fs::create_dir(&layer).map_err(Error::io("making folder", &layer))?;
        let stage = self.objects.stage(&scratch.0.join("objects"))?;
        let recipe = layer.join("recipe");
        let recipe = File::create(&recipe).map_err(Error::io("making", &recipe))?;
        let (measured, objects) = unpack::unpack(stage, recipe, label, stream)?;
        let list = layer.join("objects");
        write_list(&list, &objects).map_err(Error::io("writing", &list))?;
        let record = Record { size_bytes: measured.size_bytes, archive_bytes: measured.archive_bytes };
        let path = layer.join("layer.json");
        let json = serde_json::to_vec(&record).map_err(|e| Error::io("writing", &path)(e.into()))?;
        std::fs::write(&path, json).map_err(Error::io("writing", &path))?;
        Ok(Unpacked { measured, objects, scratch })
    }

    /// Makes layers complete, in one go: one sync serves all.
    pub fn commit(&self, unpacked: Vec<Unpacked>) -> Result<(), Error> {
        if unpacked.is_empty() {
            return Ok(());
        }
        let temporary = open_folder(&self.temporary)?;
        syncfs(&temporary).map_err(|error| Error::io("syncing", &self.temporary)(error.into()))?;
        let completed = self.complete(&unpacked);
        if completed.is_err() {
            let objects = unpacked.iter().flat_map(|layer| &layer.objects).map(|object| object.id).collect();
            self.collect(objects)?;
        }
        completed
    }

    fn complete(&self, unpacked: &[Unpacked]) -> Result<(), Error> {
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in unpacked {
            self.objects.take_in(&layer.scratch.0.join("objects"), &layer.objects)?;
        }
        let objects = self.objects.folder();
        durable::sync_folder(objects).map_err(Error::io("syncing folder", objects))?;
        for layer in unpacked {
            let target = self.recipes.join(layer.measured.diff_id.hex());
            match rustix::fs::rename(layer.scratch.0.join("layer"), &target) {
                // Someone else was quicker with the same content.
                Ok(()) | Err(Errno::NOTEMPTY | Errno::EXIST) => {}
                Err(error) => return Err(Error::io("completing layer", &target)(error.into())),
            }
        }
        durable::sync_folder(&self.recipes).map_err(Error::io("syncing folder", &self.recipes))
    }

    /// Takes a layer out of sight by one rename.
    pub fn remove(&self, diff_id: &Digest) -> Result<Removed, Error> {
        let mut objects = Vec::new();
        self.each_object(diff_id, |object| objects.push(object))?;
        let scratch = self.hide(&self.folder(diff_id), diff_id)?;
        Ok(Removed { objects, _scratch: scratch })
    }

    fn hide(&self, folder: &Path, diff_id: &Digest) -> Result<Scratch, Error> {
        // Not by a number: one of before a crash may still be there.
        let path = self.temporary.join(format!("removed-{}", diff_id.hex()));
        drop(Scratch(path.clone()));
        match std::fs::rename(folder, &path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("removing layer", folder)(error))
            }
            _ => Ok(Scratch(path)),
        }
    }

    /// Removes the objects of removed layers that no other layer has.
    pub fn forget(&self, removed: Vec<Removed>) -> Result<(), Error> {
        if removed.is_empty() {
            return Ok(());
        }
        // A layer must not come back without its objects.
        durable::sync_folder(&self.recipes).map_err(Error::io("syncing folder", &self.recipes))?;
        self.collect(removed.iter().flat_map(|layer| &layer.objects).map(|object| object.id).collect())
    }

    /// Removes those of these objects that no layer has.
    fn collect(&self, mut objects: BTreeSet<ObjectId>) -> Result<(), Error> {
        if objects.is_empty() {
            return Ok(());
        }
        let _order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in names(&self.recipes)? {
            self.each_object(&layer, |object| {
                objects.remove(&object.id);
            })?;
        }
        self.objects.remove(&objects)
    }

    /// All layers that are here. Names that are no digest are passed over.
    pub fn all(&self) -> Result<BTreeSet<Digest>, Error> {
        names(&self.recipes)
    }

    fn folder(&self, diff_id: &Digest) -> PathBuf {
        self.recipes.join(diff_id.hex())
    }
}

fn names(folder: &Path) -> Result<BTreeSet<Digest>, Error> {
    let entries = std::fs::read_dir(folder).map_err(Error::io("listing", folder))?;
    Ok(entries.filter_map(|entry| Digest::from_hex(entry.ok()?.file_name().to_str()?).ok()).collect())
}

fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io("opening", path)(error.into()))
}
