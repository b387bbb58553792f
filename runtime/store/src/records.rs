//! Which images there are and what they are called: `images.json`, written anew at each change, so that a tag can
//! move from one image to another in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use keel_durable::{self as durable, Stored};
use serde::{Deserialize, Serialize};

use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::reference::Reference;
use crate::registry::signature::Signed;

/// Longest `images.json`.
const MAX_FILE_BYTES: u64 = 32 << 20;
/// Names that one image may have.
const MAX_NAMES: usize = 1024;

/// What the store knows of an image beside its config.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Names with tags, as Docker shows them.
    pub tags: Vec<String>,
    /// Names with digests of manifests.
    #[serde(default)]
    pub digests: Vec<String>,
    /// Manifest it was pulled by.
    #[serde(default)]
    pub manifest: Option<Digest>,
    /// Diff IDs of its layers.
    pub layers: Vec<Digest>,
    /// The file of its tree; `None`: not made yet.
    #[serde(default)]
    pub tree: Option<Digest>,
    /// When it got a name last, seconds since 1970.
    #[serde(default)]
    pub tagged_unix_s: Option<i64>,
    /// The signature that it was pulled with.
    #[serde(default)]
    pub signed: Option<Signed>,
}

/// All images.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    images: BTreeMap<ImageId, Record>,
}

/// The file, and its content in memory.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    images: Images,
}

impl Records {
    /// Reads the file; none is no image. The second value tells whether the content can be relied on: a damaged
    /// file is moved aside, and then layers that nothing refers to must be kept.
    pub fn open(root: &Path) -> Result<(Self, bool), Error> {
        let path = root.join("images.json");
        let stored = durable::read_json(&path, MAX_FILE_BYTES).map_err(Error::io("reading", &path))?;
        let reliable = stored != Stored::Damaged;
        Ok((Self { path, images: stored.value().unwrap_or_default() }, reliable))
    }

    /// The images as they are.
    pub fn images(&self) -> &Images {
        &self.images
    }

    /// Changes the images: in a copy, then on disk, then in memory.
    pub fn change<T>(&mut self, change: impl FnOnce(&mut Images) -> Result<T, Error>) -> Result<T, Error> {
        let mut images = self.images.clone();
        let result = change(&mut images)?;
        if images != self.images {
            durable::write_json(&self.path, &images).map_err(Error::io("writing", &self.path))?;
            self.images = images;
        }
        Ok(result)
    }
}

impl Images {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&ImageId, &Record)> {
        self.images.iter()
    }

    /// One of them.
    pub fn get(&self, id: &ImageId) -> Option<&Record> {
        self.images.get(id)
    }

    /// Adds an image, or what is new about it.
    pub fn add(&mut self, id: ImageId, layers: Vec<Digest>, tree: Option<Digest>, manifest: Option<Digest>) {
        let record = self.images.entry(id).or_default();
        record.layers = layers;
        record.tree = tree;
        record.manifest = manifest.or(record.manifest);
    }

    /// Notes an image's signature.
    pub fn sign(&mut self, id: &ImageId, signed: Signed) -> Result<(), Error> {
        let record = self.images.get_mut(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        record.signed = Some(signed);
        Ok(())
    }

    /// Gives an image a name; another image that has it loses it.
    pub fn name(&mut self, id: &ImageId, name: &Reference, now_unix_s: i64) -> Result<(), Error> {
        let text = name.to_string();
        for (other, record) in &mut self.images {
            // An image keeps its digest names: they stay true.
            if other != id && name.digest().is_none() {
                record.tags.retain(|tag| *tag != text);
            }
        }
        let record = self.images.get_mut(id).ok_or_else(|| Error::NoSuchImage(id.to_string()))?;
        let names = if name.digest().is_some() { &mut record.digests } else { &mut record.tags };
        if names.len() >= MAX_NAMES {
            return Err(Error::Invalid { what: id.to_string(), reason: format!("it has {MAX_NAMES} names already") });
        }
        if !names.contains(&text) {
            names.push(text);
            names.sort();
        }
        if name.digest().is_none() {
            record.tagged_unix_s = Some(now_unix_s);
        }
        Ok(())
    }

    /// Takes names from an image.
    pub fn unname(&mut self, id: &ImageId, keep: impl Fn(&str) -> bool) {
        if let Some(record) = self.images.get_mut(id) {
            record.tags.retain(|name| keep(name));
            record.digests.retain(|name| keep(name));
        }
    }

    /// Removes an image.
    pub fn remove(&mut self, id: &ImageId) {
        self.images.remove(id);
    }

    /// Finds an image by name, ID (with or without `sha256:`) or beginning of its ID, in Docker's order.
    pub fn find(&self, text: &str) -> Result<ImageId, Error> {
        let none = || Error::NoSuchImage(text.to_owned());
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if let Ok(id) = Digest::from_hex(hex) {
            return self.images.get_key_value(&id).map(|(id, _)| *id).ok_or_else(none);
        }
        if let Ok(reference) = text.parse::<Reference>() {
            let name = match (reference.tag(), reference.digest()) {
                (Some(_), Some(digest)) => reference.with_digest(*digest).to_string(),
                _ => reference.to_string(),
            };
            let named = |record: &Record| record.tags.contains(&name) || record.digests.contains(&name);
            if let Some((id, _)) = self.images.iter().find(|(_, record)| named(record)) {
                return Ok(*id);
            }
        }
        let is_prefix = !hex.is_empty() && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let mut fits = self.images.keys().filter(|id| is_prefix && id.hex().starts_with(hex));
        match (fits.next(), fits.next()) {
            (Some(id), None) => Ok(*id),
            (Some(_), Some(_)) => Err(Error::Ambiguous(text.to_owned())),
            _ => Err(none()),
        }
    }

    /// Configs, manifests and signed indexes of all images.
    pub fn blobs(&self) -> BTreeSet<Digest> {
        let index = |record: &Record| record.signed.as_ref().and_then(|signed| signed.index);
        self.images.iter().flat_map(|(id, record)| [Some(*id), record.manifest, index(record)]).flatten().collect()
    }

    /// The files of all images' trees.
    pub fn trees(&self) -> BTreeSet<Digest> {
        self.images.values().filter_map(|record| record.tree).collect()
    }

    /// The tree of an image of these layers.
    pub fn tree_of(&self, layers: &[Digest]) -> Option<Digest> {
        self.images.values().filter(|record| record.layers == layers).find_map(|record| record.tree)
    }

    /// Notes the tree of an image.
    pub fn set_tree(&mut self, id: &ImageId, tree: Digest) {
        if let Some(record) = self.images.get_mut(id) {
            record.tree = Some(tree);
        }
    }

    /// Images with a tag of this repository, with those tags: for a name without tag and digest.
    pub fn of_repository(&self, repository: &str) -> Vec<(ImageId, Vec<String>)> {
        let fits = |tag: &&String| tag.rsplit_once(':').is_some_and(|(name, _)| name == repository);
        let tags = self.images.iter().map(|(id, record)| (*id, record.tags.iter().filter(fits).cloned().collect()));
        tags.filter(|(_, tags): &(ImageId, Vec<String>)| !tags.is_empty()).collect()
    }

    /// Whether any image has this layer.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        self.images.values().any(|record| record.layers.contains(diff_id))
    }
}
