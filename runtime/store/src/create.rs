//! Images made here: imported from the archive of a root, or committed from a container's changes.

use std::io::Read;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::change;
use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::image::{History, ImageConfig};
use crate::model::{ConfigFile, MAX_CONFIG_BYTES, MAX_LAYERS, RootFs};
use crate::reference::Reference;
use crate::store::Store;

/// What an imported archive becomes beside its files.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Name that it gets.
    pub name: Option<Reference>,
    /// Comment in its history; empty: where it came from.
    pub message: String,
    /// Instructions of a Dockerfile that set the config, such as `CMD ["sh"]`.
    pub changes: Vec<String>,
}

/// What a container's changes become beside their files.
#[derive(Clone, Debug, Default)]
pub struct Commit {
    /// Name that the image gets.
    pub name: Option<Reference>,
    /// Author.
    pub author: String,
    /// Comment in its history.
    pub message: String,
    /// The command that made the changes, for the history.
    pub created_by: String,
    /// What containers of the image are to run with; `None`: what those of the base do.
    pub config: Option<ImageConfig>,
    /// Instructions of a Dockerfile that change that.
    pub changes: Vec<String>,
}

impl Store {
    /// Makes an image with one layer of a root file system's tar archive, compressed or not.
    pub fn import(&self, archive: &mut dyn Read, import: &Import) -> Result<ImageId, Error> {
        let mut settings = ImageConfig::default();
        change::apply_all(&mut settings, &import.changes)?;
        let unpacked = self.depot.unpack("the imported archive", archive)?;
        let diff_id = unpacked.measured.diff_id;
        let _pins = self.pin([diff_id]);
        self.depot.commit(vec![unpacked])?;
        let created = now();
        let comment = if import.message.is_empty() { "Imported from -" } else { &import.message };
        let history = History { created: created.clone(), comment: comment.into(), ..History::default() };
        let config = ConfigFile {
            created,
            architecture: "amd64".into(),
            os: "linux".into(),
            config: settings,
            rootfs: RootFs { kind: "layers".into(), diff_ids: vec![diff_id] },
            history: vec![history],
            ..ConfigFile::default()
        };
        self.finish(&config, vec![diff_id], import.name.as_ref())
    }

    /// Makes an image of another and a further layer: `diff` is its tar archive, with whiteouts for what is gone (OCI
    /// image spec, layer.md). `None`: only the config changes.
    pub fn commit(&self, base: &ImageId, diff: Option<&mut dyn Read>, commit: &Commit) -> Result<ImageId, Error> {
        // Held from here on: the base may lose its last name meanwhile.
        let layers = match self.records().images().get(base) {
            Some(record) => record.layers.clone(),
            None => return Err(Error::NoSuchImage(base.to_string())),
        };
        let _base_pins = self.pin(layers.iter().copied());
        let mut config = ConfigFile::parse(&format!("image {base}"), &self.blob(base, MAX_CONFIG_BYTES)?)?;
        if let Some(settings) = &commit.config {
            config.config.clone_from(settings);
        }
        change::apply_all(&mut config.config, &commit.changes)?;
        if diff.is_some() && layers.len() >= MAX_LAYERS {
            let reason = format!("it has {MAX_LAYERS} layers already");
            return Err(Error::Invalid { what: format!("image {base}"), reason });
        }
        let unpacked = diff.map(|diff| self.depot.unpack("the container's changes", diff)).transpose()?;
        let added: Vec<Digest> = unpacked.iter().map(|layer| layer.measured.diff_id).collect();
        let _pins = self.pin(added.iter().copied());
        self.depot.commit(unpacked.into_iter().collect())?;
        config.created = now();
        if !commit.author.is_empty() {
            config.author.clone_from(&commit.author);
        }
        config.history.push(History {
            created: config.created.clone(),
            author: config.author.clone(),
            created_by: commit.created_by.clone(),
            comment: commit.message.clone(),
            empty_layer: added.is_empty(),
        });
        let layers: Vec<_> = layers.into_iter().chain(added).collect();
        config.rootfs = RootFs { kind: "layers".into(), diff_ids: layers.clone() };
        self.finish(&config, layers, commit.name.as_ref())
    }

    fn finish(&self, config: &ConfigFile, layers: Vec<Digest>, name: Option<&Reference>) -> Result<ImageId, Error> {
        let json = serde_json::to_vec(config)
            .map_err(|error| Error::Invalid { what: "the new image's config".into(), reason: error.to_string() })?;
        self.record(&json, layers, None, &name.into_iter().cloned().collect::<Vec<_>>())
    }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
