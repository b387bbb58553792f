//! Images made here: imported from the archive of a root, or committed from a container's changes.

use std::io::Read;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::digest::ImageId;
use crate::draft::Draft;
use crate::error::Error;
use crate::image::{History, ImageConfig};
use crate::reference::Reference;
use crate::store::Store;

/// What an imported archive becomes beside its files.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Name that it gets.
    pub name: Option<Reference>,
    /// Comment in its history; empty: where it came from.
    pub message: String,
    /// What containers of it are to run with.
    pub config: ImageConfig,
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
}

impl Store {
    /// Makes an image with one layer of a root file system's tar archive, compressed or not.
    pub fn import(&self, archive: &mut dyn Read, import: &Import) -> Result<ImageId, Error> {
        let added = self.add_layer("the imported archive", archive)?;
        let mut draft = Draft::scratch();
        let comment = if import.message.is_empty() { "Imported from -" } else { &import.message };
        let history = History { created: now(), comment: comment.into(), ..History::default() };
        draft.step(import.config.clone(), Some(added.layer), history)?;
        self.keep(&draft, import.name.as_slice())
    }

    /// Makes an image of another and a further layer: `diff` is its tar archive, with whiteouts for what is gone (OCI
    /// image spec, layer.md). `None`: only the config changes.
    pub fn commit(&self, base: &ImageId, diff: Option<&mut dyn Read>, commit: &Commit) -> Result<ImageId, Error> {
        let (mut draft, _base_pins) = self.draft(base)?;
        let settings = commit.config.clone().unwrap_or_else(|| draft.config().clone());
        let added = diff.map(|diff| self.add_layer("the container's changes", diff)).transpose()?;
        let history = History {
            created: now(),
            author: commit.author.clone(),
            created_by: commit.created_by.clone(),
            comment: commit.message.clone(),
            ..History::default()
        };
        draft.step(settings, added.as_ref().map(|held| held.layer), history)?;
        self.keep(&draft, commit.name.as_slice())
    }
}

fn now() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}
