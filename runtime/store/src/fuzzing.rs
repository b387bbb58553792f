//! The parsers of what registries and archives hold, as tests that change their input call them.

use std::io::Read;

use crate::error::Error;
use crate::layer::archive::Archive;
use crate::layer::head::Head;
use crate::layer::walk::{Contents, Failure, walk};
use crate::model::{ConfigFile, Manifest, Platform};
use crate::tree::{Body, Tree};

/// Reads a manifest or index; returns its layers, or the images of it that run here.
pub fn manifest(bytes: &[u8]) -> Result<usize, Error> {
    Ok(match Manifest::parse("manifest", bytes)? {
        Manifest::Image(image) => image.layers.len(),
        Manifest::Index(entries) => {
            usize::from(Platform::runnable("linux/amd64").is_some_and(|here| here.choose(&entries).is_some()))
        }
    })
}

/// Reads an image's config; returns its layers.
pub fn config(bytes: &[u8]) -> Result<usize, Error> {
    ConfigFile::parse("config", bytes).map(|config| config.rootfs.diff_ids.len())
}

/// Puts an archive's entries into a tree, as one layer above another of the same; returns the paths of its files.
pub fn layer(bytes: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
    let mut tree = Tree::default();
    for _ in 0..2 {
        tree.next_layer();
        walk("layer", &mut Archive::new(bytes), &mut tree, &mut Dropped)?;
    }
    let mut paths = Vec::new();
    let mut waiting = vec![(Vec::new(), tree.root())];
    while let Some((above, id)) = waiting.pop() {
        for (name, child) in tree.node(id).and_then(|node| node.body.names()).into_iter().flatten() {
            let path = [&above, &name[..], b"/"].concat();
            waiting.push((path.clone(), *child));
            paths.push(path);
        }
    }
    Ok(paths)
}

/// Contents are read and dropped.
struct Dropped;

impl<'a> Contents<&'a [u8], ()> for Dropped {
    fn take(&mut self, archive: &mut Archive<&'a [u8], ()>, _head: &Head) -> Result<Body, Failure> {
        std::io::copy(&mut archive.content(true).by_ref(), &mut std::io::sink()).map_err(Failure::Read)?;
        Ok(Body::Inline(0, 0))
    }
}
