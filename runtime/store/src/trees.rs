//! The files of images' trees: `trees/<fs-verity digest>`, an erofs with all names and attributes of an image.
//!
//! Such a file can be made again from the layers' recipes at any time, and the same layers give the same bytes. So a
//! missing one, or one that the kernel doesn't know by its digest, is no loss.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::digest::{Digest, ImageId, ObjectId};
use crate::error::Error;
use crate::layer::depot::Depot;
use crate::layer::replay::{Spool, replay};
use crate::objects::Seals;
use crate::store::Store;
use crate::tree::{self, Tree};
use crate::verity::Hasher;

/// Bytes written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// The trees of a store.
#[derive(Debug)]
pub struct Trees {
    folder: PathBuf,
}

/// A tree's file, open, and whether the kernel checks it.
#[derive(Debug)]
pub struct TreeFile {
    /// Its digest by fs-verity.
    pub name: Digest,
    /// The file.
    pub file: File,
    /// Whether the kernel checks it, and the objects that it names.
    pub is_sealed: bool,
}

impl Trees {
    /// Trees below the folder of a store.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let folder = root.join("trees");
        std::fs::create_dir_all(&folder).map_err(Error::io("making folder", &folder))?;
        Ok(Self { folder })
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of a tree; `None`: it isn't there, or isn't what it was.
    fn find(&self, tree: &Digest, is_sealed: bool) -> Result<Option<TreeFile>, Error> {
        let path = self.path(tree);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(Error::io("opening", &path))?,
        };
        if is_sealed && !Seals::hold(&file, tree).map_err(Error::io("measuring", &path))? {
            log::warn!("{} isn't what it was: it is made again", path.display());
            return Ok(None);
        }
        Ok(Some(TreeFile { name: *tree, file, is_sealed }))
    }

    /// Makes the tree of these layers, lowest first.
    fn make(&self, depot: &Depot, layers: &[Digest]) -> Result<Digest, Error> {
        let scratch = depot.scratch()?;
        let (spool, made) = (scratch.0.join("spool"), scratch.0.join("tree"));
        let file = File::options().read(true).write(true).create_new(true).open(&spool);
        let mut contents = file.and_then(Spool::new).map_err(Error::io("making", &spool))?;
        let mut tree = Tree::default();
        for layer in layers {
            replay(&format!("layer {layer} on disk"), &depot.recipe(layer), &mut tree, &mut contents)?;
        }
        let contents = contents.finish().map_err(Error::io("writing", &spool))?;
        let digest = write(&tree, &contents, &made).map_err(Error::io("writing", &made))?;
        let file = File::open(&made).map_err(Error::io("opening", &made))?;
        if depot.objects.are_sealed()? {
            Seals::set(&file, &digest).map_err(Error::io("sealing", &made))?;
        } else {
            // Nothing would tell a torn file later.
            file.sync_all().map_err(Error::io("syncing", &made))?;
        }
        let path = self.path(&digest);
        std::fs::rename(&made, &path).map_err(Error::io("completing", &path))?;
        Ok(digest)
    }

    /// Removes the trees that were needed before and aren't now.
    pub fn forget(&self, gone: &[Digest]) {
        for tree in gone {
            let path = self.path(tree);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    log::warn!("{} stays until the next start: {error}", path.display());
                }
                _ => {}
            }
        }
    }

    /// All trees that are here.
    pub fn all(&self) -> Result<Vec<Digest>, Error> {
        let entries = std::fs::read_dir(&self.folder).map_err(Error::io("listing", &self.folder))?;
        Ok(entries.filter_map(|entry| Digest::from_hex(entry.ok()?.file_name().to_str()?).ok()).collect())
    }

    /// Bytes of a tree's file; 0 if it isn't there.
    pub fn size_bytes(&self, tree: &Digest) -> u64 {
        self.path(tree).metadata().map_or(0, |metadata| metadata.len())
    }

    fn path(&self, tree: &Digest) -> PathBuf {
        self.folder.join(tree.hex())
    }
}

impl Store {
    /// The tree of these layers, lowest first; made if no image has it. The caller holds the layers.
    pub(crate) fn plant(&self, layers: &[Digest]) -> Result<Digest, Error> {
        let known = self.records().images().tree_of(layers);
        if let Some(tree) = known
            && self.trees.find(&tree, self.depot.objects.are_sealed()?)?.is_some()
        {
            return Ok(tree);
        }
        self.trees.make(&self.depot, layers)
    }

    /// The tree of an image, made again where it is missing.
    pub(crate) fn tree(&self, image: &ImageId) -> Result<TreeFile, Error> {
        let absent = || Error::NoSuchImage(image.to_string());
        let record = self.records().images().get(image).cloned().ok_or_else(absent)?;
        let is_sealed = self.depot.objects.are_sealed()?;
        if let Some(tree) = record.tree
            && let Some(file) = self.trees.find(&tree, is_sealed)?
        {
            return Ok(file);
        }
        let _pins = self.pin(record.layers.iter().copied());
        let tree = self.plant(&record.layers)?;
        self.records().change(|images| {
            images.set_tree(image, tree);
            Ok(())
        })?;
        self.trees.find(&tree, is_sealed)?.ok_or_else(absent)
    }
}

/// Writes a tree as a file; returns its name.
fn write(tree: &Tree, spool: &File, path: &Path) -> io::Result<ObjectId> {
    let mut out = Hashed { out: File::create_new(path)?, hasher: Hasher::default() };
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, &mut out);
    let mut inline = |offset, length: u16| {
        let mut bytes = vec![0; length.into()];
        spool.read_exact_at(&mut bytes, offset).map(|()| bytes)
    };
    tree::erofs::write(tree, &mut inline, &mut buffered)?;
    buffered.flush()?;
    drop(buffered);
    Ok(out.hasher.finish())
}

struct Hashed {
    out: File,
    hasher: Hasher,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
