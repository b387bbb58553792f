//! The store itself.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keel_durable as durable;
use keel_fetch::{Client, Proxies};
use keel_spec::tuf::PublicKey;
use rustix::fs::{FlockOperation, flock};

use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::image::Image;
use crate::layer::depot::Depot;
use crate::model::{ConfigFile, MAX_CONFIG_BYTES};
use crate::mounts::Mounts;
use crate::progress::{Progress, Status};
use crate::records::{Images, Record, Records};
use crate::reference::Reference;
use crate::registry::signature::Signed;
use crate::trees::Trees;
use crate::userns::Namespaces;
use crate::{load, remove};

/// How a store works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `host[:port]` of registries that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// Further certificate authorities for registries, PEM.
    pub extra_ca_pem: Option<String>,
    /// Registries whose images are looked for elsewhere first: `host[:port]`, and the address of the mirror.
    pub mirrors: Vec<(String, String)>,
    /// Which registries are reached by a proxy.
    pub proxies: Proxies,
    /// Whether images are pulled and run by digest only.
    pub require_digest: bool,
    /// Keys of which one must have signed each image that is pulled or run; none: signatures aren't asked for.
    pub signature_keys: Vec<PublicKey>,
    /// How long nothing may come from a registry before it counts as broken off; `None`: 30 s.
    pub stall_limit: Option<Duration>,
    /// Longest wait for another process that has the store open: one that was killed may take a moment to be gone, and
    /// what it was cloning holds the lock until it executes its program.
    pub lock_wait: Duration,
}

/// Which IDs of the host stand for 0, 1, … of a container, for users and groups alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdMap {
    /// The host's ID for the container's 0.
    pub host_base: u32,
    /// How many.
    pub count: u32,
}

/// An image that an archive held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Image.
    pub id: ImageId,
    /// Names it got.
    pub tags: Vec<String>,
}

/// Pause between two tries for the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// Takes the lock, waiting for it as long as `limit`.
fn take(lock: &File, limit: Duration) -> Result<(), rustix::io::Errno> {
    let deadline = Instant::now() + limit;
    loop {
        match flock(lock, FlockOperation::NonBlockingLockExclusive) {
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
}

/// One step of removing an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// This name is gone.
    Untagged(String),
    /// This image (`sha256:…`) or layer is gone.
    Deleted(String),
}

/// Images and layers under one folder. One process has it open at a time.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    pub(crate) depot: Depot,
    pub(crate) trees: Trees,
    pub(crate) mounts: Mounts,
    records: Mutex<Records>,
    /// Layers that an operation counts on before a record names them, with how many do.
    pins: Mutex<HashMap<Digest, u32>>,
    pub(crate) namespaces: Namespaces,
    pub(crate) options: Options,
    pub(crate) client: Client,
    _lock: OwnedFd,
}

impl Store {
    /// Opens the store in a folder, which is made if absent, and clears away what a crash left unfinished.
    pub fn open(root: &Path, options: Options) -> Result<Self, Error> {
        let root = &std::path::absolute(root).map_err(Error::io("finding", root))?;
        std::fs::create_dir_all(root.join("blobs/sha256")).map_err(Error::io("making folder", root))?;
        let lock = File::create(root.join("lock")).map_err(Error::io("making the lock of", root))?;
        take(&lock, options.lock_wait)
            .map_err(|error| Error::io("locking (is it open elsewhere?)", root)(error.into()))?;
        let default = keel_fetch::Options::default();
        let client = Client::new(keel_fetch::Options {
            extra_ca_pem: options.extra_ca_pem.clone(),
            proxies: options.proxies.clone(),
            idle_timeout: options.stall_limit.unwrap_or(default.idle_timeout),
            ..default
        });
        let client = client.map_err(|source| Error::Fetch { reference: "images".into(), source })?;
        let (depot, trees) = (Depot::open(root)?, Trees::open(root)?);
        let (records, reliable) = Records::open(root)?;
        let store = Self {
            root: root.clone(),
            depot,
            mounts: Mounts::new(root, trees.folder()),
            trees,
            records: Mutex::new(records),
            pins: Mutex::default(),
            namespaces: Namespaces::default(),
            options,
            client,
            _lock: lock.into(),
        };
        if reliable {
            store.sweep(store.depot.all()?);
            store.sweep_blobs()?;
            let known = store.records().images().trees();
            let gone: Vec<_> = store.trees.all()?.into_iter().filter(|tree| !known.contains(tree)).collect();
            store.trees.forget(&gone);
        }
        store.depot.clear()?;
        Ok(store)
    }

    /// Takes in the images of a `docker save` archive.
    pub fn load(&self, archive: &mut dyn Read, progress: &mut dyn FnMut(Progress)) -> Result<Vec<Loaded>, Error> {
        let contents = load::read(&self.depot, archive, progress)?;
        let _pins = self.pin(contents.images.iter().flat_map(|image| image.layers.clone()));
        self.depot.commit(contents.unpacked)?;
        let mut loaded = Vec::new();
        for image in contents.images {
            let names: Vec<Reference> = image.names.iter().filter_map(|name| name.parse().ok()).collect();
            let id = self.record(&image.config, image.layers, None, &names)?;
            let tags: Vec<String> = names.iter().map(Reference::to_string).collect();
            for shown in if tags.is_empty() { vec![id.to_string()] } else { tags.clone() } {
                progress(Progress { id: None, status: Status::Loaded(shown) });
            }
            loaded.push(Loaded { id, tags });
        }
        Ok(loaded)
    }

    /// The HTTP client, with the machine config's proxies and certificate authorities.
    pub fn http(&self) -> &Client {
        &self.client
    }

    /// Whether the kernel checks the files of images whenever they are read (fs-verity).
    pub fn is_sealed(&self) -> Result<bool, Error> {
        self.depot.objects.are_sealed()
    }

    /// All images, newest first.
    pub fn images(&self) -> Vec<Image> {
        let known: Vec<_> = self.records().images().iter().map(|(id, record)| (*id, record.clone())).collect();
        let mut images: Vec<_> = known
            .into_iter()
            .filter_map(|(id, record)| match self.describe(id, record) {
                Ok(image) => Some(image),
                Err(error) => {
                    log::error!("image {id} is unusable: {error}");
                    None
                }
            })
            .collect();
        images.sort_by(|a, b| b.created.cmp(&a.created));
        images
    }

    /// An image by name, ID or beginning of its ID.
    pub fn image(&self, name_or_id: &str) -> Result<Image, Error> {
        let (id, record) = {
            let records = self.records();
            let id = records.images().find(name_or_id)?;
            (id, records.images().get(&id).cloned().unwrap_or_default())
        };
        self.describe(id, record)
    }

    /// Does something while an image is there and nobody can remove it, such as noting that it is in use. The image
    /// records are locked meanwhile: `work` must not ask the store, and must be short.
    pub fn while_there<T>(&self, id: &ImageId, work: impl FnOnce() -> T) -> Result<T, Error> {
        let records = self.records();
        records.images().get(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        Ok(work())
    }

    /// All names with a tag of a repository, `alpine` or `registry.example/a`.
    pub fn tags_of(&self, repository: &str) -> Vec<Reference> {
        let of_repository = self.records().images().of_repository(repository);
        of_repository.into_iter().flat_map(|(_, tags)| tags).filter_map(|tag| tag.parse().ok()).collect()
    }

    /// Gives an image a further name.
    pub fn tag(&self, name_or_id: &str, name: &Reference) -> Result<(), Error> {
        if name.digest().is_some() {
            return Err(Error::Invalid { what: name.to_string(), reason: "a tag can't be a digest".into() });
        }
        self.records().change(|images| {
            let id = images.find(name_or_id)?;
            images.name(&id, name, now_unix_s())
        })
    }

    /// Removes a name, and the image with its last one. An image in use keeps its layers: without `force` that is a
    /// conflict, with it the image only loses its names.
    pub fn remove(
        &self,
        name_or_id: &str,
        force: bool,
        in_use: &dyn Fn(&ImageId) -> bool,
    ) -> Result<Vec<Removed>, Error> {
        self.removing(|images| remove::remove(images, name_or_id, force, in_use))
    }

    /// Removes an image with all its names unless it is in use.
    pub fn prune(&self, id: &ImageId, in_use: &dyn Fn(&ImageId) -> bool) -> Result<Vec<Removed>, Error> {
        self.removing(|images| remove::prune(images, id, in_use))
    }

    fn removing(
        &self,
        change: impl FnOnce(&mut Images) -> Result<(Vec<Removed>, Vec<Digest>), Error>,
    ) -> Result<Vec<Removed>, Error> {
        let ((mut removed, layers), gone) = {
            let mut records = self.records();
            let before = records.images().clone();
            let changed = records.change(change)?;
            self.forget_blobs(&before, records.images());
            let gone: Vec<_> = before.trees().difference(&records.images().trees()).copied().collect();
            self.trees.forget(&gone);
            (changed, gone)
        };
        self.mounts.forget(&gone);
        removed.extend(self.sweep(layers).into_iter().map(|layer| Removed::Deleted(layer.to_string())));
        Ok(removed)
    }

    /// Removes configs and manifests that the images referred to before and don't now. The caller holds the records,
    /// so that nobody comes to count on one meanwhile. One that stays is removed at the next start.
    fn forget_blobs(&self, before: &Images, now: &Images) {
        for blob in before.blobs().difference(&now.blobs()) {
            let path = self.blob_path(blob);
            if let Err(error) = std::fs::remove_file(&path) {
                log::warn!("{} stays until the next start: {error}", path.display());
            }
        }
    }

    /// Removes all configs and manifests that no image refers to, and what a crash left of writing them.
    fn sweep_blobs(&self) -> Result<(), Error> {
        let folder = self.root.join("blobs/sha256");
        let known = self.records().images().blobs();
        for entry in std::fs::read_dir(&folder).map_err(Error::io("listing", &folder))?.flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| Digest::from_hex(name).ok());
            if digest.is_none_or(|digest| !known.contains(&digest)) {
                std::fs::remove_file(entry.path()).map_err(Error::io("removing", entry.path()))?;
            }
        }
        Ok(())
    }

    /// Writes an image's config and record: from here on it exists.
    pub(crate) fn record(
        &self,
        config: &[u8],
        layers: Vec<Digest>,
        manifest: Option<&[u8]>,
        names: &[Reference],
    ) -> Result<ImageId, Error> {
        let tree = self.plant(&layers)?;
        let mut records = self.records();
        // With the records held: a removal must not take the blobs away in between.
        let id = self.write_blob(config)?;
        let manifest = manifest.map(|manifest| self.write_blob(manifest)).transpose()?;
        records.change(|images| {
            images.add(id, layers, Some(tree), manifest);
            names.iter().try_for_each(|name| images.name(&id, name, now_unix_s()))
        })?;
        Ok(id)
    }

    /// Notes the signature that an image was pulled with, and the index that it is of.
    pub(crate) fn note_signature(&self, id: &ImageId, mut signed: Signed, index: Option<&[u8]>) -> Result<(), Error> {
        let mut records = self.records();
        signed.index = index.map(|index| self.write_blob(index)).transpose()?;
        let before = records.images().clone();
        records.change(|images| images.sign(id, signed))?;
        self.forget_blobs(&before, records.images());
        Ok(())
    }

    /// Keeps a config or manifest by its digest.
    fn write_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        let path = self.blob_path(&digest);
        if !path.exists() {
            durable::write(&path, bytes).map_err(Error::io("writing", &path))?;
        }
        Ok(digest)
    }

    /// Holds layers against [`Store::remove`] as long as the value lives.
    pub(crate) fn pin(&self, layers: impl IntoIterator<Item = Digest>) -> Pins<'_> {
        let mut pins = Pins { store: self, layers: Vec::new() };
        pins.add(&layers.into_iter().collect::<Vec<_>>());
        pins
    }

    /// Removes those of these layers that nothing refers to any more.
    fn sweep(&self, layers: impl IntoIterator<Item = Digest>) -> Vec<Digest> {
        let (mut removed, mut hidden) = (Vec::new(), Vec::new());
        for layer in layers {
            // Both locks are held for the rename, so that nobody comes to count on the layer meanwhile.
            let records = self.records();
            let pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
            if records.images().has_layer(&layer) || pins.contains_key(&layer) || !self.depot.has(&layer) {
                continue;
            }
            match self.depot.remove(&layer) {
                Ok(layer_hidden) => {
                    hidden.push(layer_hidden);
                    removed.push(layer);
                }
                Err(error) => log::warn!("layer {layer} stays: {error}"),
            }
        }
        if let Err(error) = self.depot.forget(hidden) {
            log::warn!("files of removed layers stay: {error}");
        }
        removed
    }

    fn describe(&self, id: ImageId, record: Record) -> Result<Image, Error> {
        let bytes = self.blob(&id, MAX_CONFIG_BYTES)?;
        let config = ConfigFile::parse(&format!("image {id}"), &bytes)?;
        Ok(Image {
            id,
            tags: record.tags,
            digests: record.digests,
            size_bytes: record.layers.iter().map(|layer| self.depot.size_bytes(layer)).sum(),
            created: config.created,
            architecture: config.architecture,
            os: config.os,
            author: config.author,
            variant: config.variant,
            comment: config.history.last().map(|step| step.comment.clone()).unwrap_or_default(),
            tagged_unix_s: record.tagged_unix_s,
            layer_bytes: record.layers.iter().map(|layer| self.depot.size_bytes(layer)).collect(),
            config: config.config,
            layers: record.layers,
            history: config.history,
        })
    }

    /// A config or manifest, checked.
    pub(crate) fn blob(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let path = self.blob_path(digest);
        let absent = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let bytes = durable::read(&path, max_bytes).and_then(|bytes| bytes.ok_or_else(absent));
        let bytes = bytes.map_err(Error::io("reading", &path))?;
        let got = Digest::of(&bytes);
        if got != *digest {
            return Err(Error::Digest { what: path.display().to_string(), expected: *digest, got });
        }
        Ok(bytes)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Seconds since 1970.
pub(crate) fn now_unix_s() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}

/// Layers held by an operation. When it ends without having recorded an image, they go.
pub struct Pins<'a> {
    store: &'a Store,
    layers: Vec<Digest>,
}

impl Pins<'_> {
    /// Holds further layers.
    pub(crate) fn add(&mut self, layers: &[Digest]) {
        let mut pins = self.store.pins.lock().unwrap_or_else(PoisonError::into_inner);
        for layer in layers {
            *pins.entry(*layer).or_default() += 1;
        }
        self.layers.extend(layers);
    }
}

impl Drop for Pins<'_> {
    fn drop(&mut self) {
        {
            let mut pins = self.store.pins.lock().unwrap_or_else(PoisonError::into_inner);
            for layer in &self.layers {
                if let Some(count) = pins.get_mut(layer) {
                    *count = count.saturating_sub(1);
                }
            }
            pins.retain(|_, count| *count > 0);
        }
        self.store.sweep(std::mem::take(&mut self.layers));
    }
}
