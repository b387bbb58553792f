//! Images in the making: a base, then one step after another, each with a layer or without.

use std::io::Read;

use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::image::{History, ImageConfig};
use crate::model::{ConfigFile, MAX_CONFIG_BYTES, MAX_LAYERS, RootFs};
use crate::reference::Reference;
use crate::store::{Pins, Store};

/// An image in the making. Nothing of it is on disk before [`Store::keep`], and whoever makes it holds its layers.
#[derive(Clone, Debug)]
pub struct Draft {
    file: ConfigFile,
    /// The image that this still is.
    unchanged: Option<ImageId>,
}

/// A layer that was added to the store, held as long as this value lives.
pub struct Held<'a> {
    /// Its diff ID.
    pub layer: Digest,
    pins: Pins<'a>,
}

impl<'a> Held<'a> {
    /// What holds it.
    pub fn into_pins(self) -> Pins<'a> {
        self.pins
    }
}

impl Draft {
    /// An image without files.
    pub fn scratch() -> Self {
        let rootfs = RootFs { kind: "layers".into(), diff_ids: Vec::new() };
        let (architecture, os) = ("amd64".into(), "linux".into());
        Self { file: ConfigFile { architecture, os, rootfs, ..ConfigFile::default() }, unchanged: None }
    }

    /// What containers of it run with.
    pub fn config(&self) -> &ImageConfig {
        &self.file.config
    }

    /// Sets what containers of it run with, without a step of its own.
    pub fn set_config(&mut self, config: ImageConfig) {
        if config != self.file.config {
            self.unchanged = None;
            self.file.config = config;
        }
    }

    /// Diff IDs of its layers, lowest first.
    pub fn layers(&self) -> &[Digest] {
        &self.file.rootfs.diff_ids
    }

    /// A further step, with the settings that hold from then on.
    pub fn step(&mut self, config: ImageConfig, layer: Option<Digest>, history: History) -> Result<(), Error> {
        if layer.is_some() && self.layers().len() >= MAX_LAYERS {
            let reason = format!("it has {MAX_LAYERS} layers already");
            return Err(Error::Invalid { what: "the new image".into(), reason });
        }
        self.unchanged = None;
        self.file.config = config;
        self.file.created.clone_from(&history.created);
        if !history.author.is_empty() {
            self.file.author.clone_from(&history.author);
        }
        self.file.rootfs.diff_ids.extend(layer);
        let author = self.file.author.clone();
        self.file.history.push(History { author, empty_layer: layer.is_none(), ..history });
        Ok(())
    }

    /// The ID that it has, or would have if it were kept.
    pub fn id(&self) -> Result<ImageId, Error> {
        match self.unchanged {
            Some(id) => Ok(id),
            None => Ok(Digest::of(&self.json()?)),
        }
    }

    fn json(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(&self.file)
            .map_err(|error| Error::Invalid { what: "the new image's config".into(), reason: error.to_string() })
    }
}

impl Store {
    /// Begins with an image; its layers are held as long as the second value lives.
    pub fn draft(&self, base: &ImageId) -> Result<(Draft, Pins<'_>), Error> {
        let layers = match self.records().images().get(base) {
            Some(record) => record.layers.clone(),
            None => return Err(Error::NoSuchImage(base.to_string())),
        };
        let pins = self.hold(&layers).ok_or_else(|| Error::NoSuchImage(base.to_string()))?;
        let mut file = ConfigFile::parse(&format!("image {base}"), &self.blob(base, MAX_CONFIG_BYTES)?)?;
        file.rootfs = RootFs { kind: "layers".into(), diff_ids: layers };
        Ok((Draft { file, unchanged: Some(*base) }, pins))
    }

    /// Adds a layer: `diff` is its tar archive, compressed or not, with whiteouts for what is gone (OCI image spec,
    /// layer.md). `what` names it in errors.
    pub fn add_layer(&self, what: &str, diff: &mut dyn Read) -> Result<Held<'_>, Error> {
        let unpacked = self.depot.unpack(what, diff)?;
        let layer = unpacked.measured.diff_id;
        let pins = self.pin([layer]);
        self.depot.commit(vec![unpacked])?;
        Ok(Held { layer, pins })
    }

    /// Holds layers as long as the value lives; `None`: not all of them are here.
    pub fn hold(&self, layers: &[Digest]) -> Option<Pins<'_>> {
        let pins = self.pin(layers.iter().copied());
        layers.iter().all(|layer| self.depot.has(layer)).then_some(pins)
    }

    /// Whether a layer is here.
    pub fn has_layer(&self, layer: &Digest) -> bool {
        self.depot.has(layer)
    }

    /// Makes an image of a draft. Its layers are here and held.
    pub fn keep(&self, draft: &Draft, names: &[Reference]) -> Result<ImageId, Error> {
        match draft.unchanged {
            Some(id) => {
                names.iter().try_for_each(|name| self.tag(&id.to_string(), name))?;
                Ok(id)
            }
            None => self.record(&draft.json()?, draft.layers().to_vec(), None, names),
        }
    }
}
