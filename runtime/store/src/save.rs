//! Images as an archive: what `docker save` writes, which is an OCI image layout as well (image-layout.md). The same
//! images give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde_json::{Value, json};

use crate::digest::{Digest, HashRead, ImageId};
use crate::error::Error;
use crate::model::{
    ArchiveImage, CONFIG_TYPE, ConfigFile, Descriptor, INDEX_TYPE, ImageManifest, LAYER_TYPE, MANIFEST_TYPE,
    MAX_CONFIG_BYTES, Platform,
};
use crate::reference::Reference;
use crate::store::{Pins, Store};

/// Images in one archive.
const MAX_IMAGES: usize = 1000;

/// What an archive is to hold, decided before its first byte. Its layers stay as long as it lives.
pub struct Saving<'a> {
    store: &'a Store,
    /// Layers, each once.
    layers: Vec<Digest>,
    /// Small files, by name.
    files: BTreeMap<String, Vec<u8>>,
    pins: Pins<'a>,
}

impl Store {
    /// Decides what an archive of these images holds. A name brings its tag, a repository's name all its tags, an ID
    /// none.
    pub fn save(&self, names: &[String]) -> Result<Saving<'_>, Error> {
        let images = self.chosen(names)?;
        let mut saving = Saving { store: self, layers: Vec::new(), files: BTreeMap::new(), pins: self.pin(Vec::new()) };
        let (mut list, mut entries, mut repositories) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (id, tags) in images {
            let layers = match self.records().images().get(&id) {
                Some(record) => record.layers.clone(),
                None => return Err(Error::NoSuchImage(id.to_string())),
            };
            saving.pins.add(&layers);
            let descriptor = saving.add(id, &layers)?;
            for tag in &tags {
                entries.push(named(&descriptor, tag)?);
                if let Some((repository, tag)) = tag.rsplit_once(':') {
                    let top = layers.last().map(Digest::hex).unwrap_or_default();
                    repositories.entry(repository.to_owned()).or_insert_with(BTreeMap::new).insert(tag.to_owned(), top);
                }
            }
            if tags.is_empty() {
                entries.push(descriptor);
            }
            let layers = layers.iter().map(blob_name).collect();
            list.push(ArchiveImage { config: blob_name(&id), repo_tags: tags.into_iter().collect(), layers });
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries });
        saving.put("index.json", &index)?;
        saving.put("manifest.json", &list)?;
        saving.put("oci-layout", &json!({ "imageLayoutVersion": "1.0.0" }))?;
        if !repositories.is_empty() {
            saving.put("repositories", &repositories)?;
        }
        Ok(saving)
    }

    /// The images meant, in order, each with the tags that it is to have.
    fn chosen(&self, names: &[String]) -> Result<Vec<(ImageId, BTreeSet<String>)>, Error> {
        let mut chosen: Vec<(ImageId, BTreeSet<String>)> = Vec::new();
        let mut choose = |id: ImageId, tags: Vec<String>| match chosen.iter_mut().find(|(other, _)| *other == id) {
            Some((_, known)) => known.extend(tags),
            None => chosen.push((id, tags.into_iter().collect())),
        };
        for name in names.iter().take(MAX_IMAGES) {
            let records = self.records();
            let images = records.images();
            let reference = name.parse::<Reference>().ok();
            let of_repository = match &reference {
                Some(reference) if reference.familiar_name() == *name => images.of_repository(name),
                _ => Vec::new(),
            };
            if !of_repository.is_empty() {
                of_repository.into_iter().for_each(|(id, tags)| choose(id, tags));
                continue;
            }
            let id = images.find(name)?;
            let tag = reference.filter(|reference| reference.digest().is_none()).map(|reference| reference.to_string());
            let is_tag = |tag: &String| images.get(&id).is_some_and(|record| record.tags.contains(tag));
            choose(id, tag.filter(is_tag).into_iter().collect());
        }
        Ok(chosen)
    }
}

impl Saving<'_> {
    /// Writes the archive.
    pub fn write(&self, out: &mut dyn Write) -> Result<(), Error> {
        let write_error = |source| Error::Write { what: "the archive of images".into(), source };
        let mut out = Archive { out };
        for folder in ["blobs/", "blobs/sha256/"] {
            out.head(folder, 0, 0o755, tar::EntryType::Directory).map_err(write_error)?;
        }
        for diff_id in &self.layers {
            let (archive, length) = self.store.depot.archive(diff_id)?;
            out.head(&blob_name(diff_id), length, 0o644, tar::EntryType::Regular).map_err(write_error)?;
            let mut archive = HashRead::new(archive);
            let copied = out.content(&mut (&mut archive).take(length)).map_err(write_error)?;
            let (got, _) = archive.finish();
            if copied != length || got != *diff_id {
                return Err(Error::Digest { what: format!("layer {diff_id} on disk"), expected: *diff_id, got });
            }
        }
        for (name, bytes) in &self.files {
            out.head(name, bytes.len() as u64, 0o644, tar::EntryType::Regular).map_err(write_error)?;
            out.content(&mut &bytes[..]).map_err(write_error)?;
        }
        out.out.write_all(&[0; 1024]).and_then(|()| out.out.flush()).map_err(write_error)
    }

    /// Adds an image with its layers, config and manifest; returns what points at the manifest.
    fn add(&mut self, id: ImageId, layers: &[Digest]) -> Result<Descriptor, Error> {
        let config = self.store.blob(&id, MAX_CONFIG_BYTES)?;
        let parsed = ConfigFile::parse(&format!("image {id}"), &config)?;
        let mut descriptors = Vec::new();
        for diff_id in layers {
            let (_, length) = self.store.depot.archive(diff_id)?;
            descriptors.push(Descriptor::new(LAYER_TYPE, *diff_id, length));
            if !self.layers.contains(diff_id) {
                self.layers.push(*diff_id);
            }
        }
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: MANIFEST_TYPE.into(),
            config: Descriptor::of(CONFIG_TYPE, &config),
            layers: descriptors,
        };
        let manifest = to_json("manifest", &manifest)?;
        let mut descriptor = Descriptor::of(MANIFEST_TYPE, &manifest);
        descriptor.platform =
            Some(Platform { architecture: parsed.architecture, os: parsed.os, variant: parsed.variant });
        self.files.insert(blob_name(&id), config);
        self.files.insert(blob_name(&descriptor.digest), manifest);
        Ok(descriptor)
    }

    fn put<T: serde::Serialize>(&mut self, name: &str, value: &T) -> Result<(), Error> {
        self.files.insert(name.into(), to_json(name, value)?);
        Ok(())
    }
}

/// The entry of an index that gives an image a name, as containerd and as Docker read it.
fn named(descriptor: &Descriptor, tag: &str) -> Result<Descriptor, Error> {
    let reference: Reference = tag.parse()?;
    let full = format!("{}/{}:{}", reference.registry(), reference.repository(), reference.tag().unwrap_or_default());
    let mut named = descriptor.clone();
    named.annotations.insert("io.containerd.image.name".into(), full);
    named.annotations.insert("org.opencontainers.image.ref.name".into(), reference.tag().unwrap_or_default().into());
    Ok(named)
}

fn blob_name(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn to_json<T: serde::Serialize>(what: &str, value: &T) -> Result<Vec<u8>, Error> {
    // By way of a value: its keys are sorted.
    let value: Result<Value, _> = serde_json::to_value(value);
    let bytes = value.and_then(|value| serde_json::to_vec(&value));
    bytes.map_err(|error| Error::Invalid { what: what.into(), reason: error.to_string() })
}

/// A ustar archive in the making. Times and owners are all 0, so that equal content makes equal archives.
struct Archive<'a> {
    out: &'a mut dyn Write,
}

impl Archive<'_> {
    fn head(&mut self, name: &str, length: u64, mode: u32, kind: tar::EntryType) -> io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_size(length);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }

    fn content(&mut self, content: &mut dyn Read) -> io::Result<u64> {
        let copied = io::copy(content, &mut self.out)?;
        let padding = usize::try_from(copied.wrapping_neg() % 512).unwrap_or_default();
        self.out.write_all([0; 512].get(..padding).unwrap_or_default())?;
        Ok(copied)
    }
}
