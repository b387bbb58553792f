//! Files that are kept once for all images: `objects/<fs-verity digest>`. The kernel checks them against that digest
//! whenever they are read, where the file system can do that.
//!
//! What stands here is complete, on disk and sealed: objects are written in a scratch folder and move here in
//! [`Objects::take_in`], after a sync.
//!
//! - `list`: which objects a layer has
//! - `seal`: fs-verity, and file systems without it
//! - `stage`: objects in the making

mod list;
mod seal;
mod stage;

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open, renameat};

pub use list::{Object, read_list, write_list};
pub use seal::Seals;
pub use stage::Stage;

use crate::digest::{Digest, ObjectId};
use crate::error::Error;

/// The objects of a store.
#[derive(Debug)]
pub struct Objects {
    folder: PathBuf,
    seals: Seals,
}

impl Objects {
    /// Objects below the folder of a store.
    pub fn new(root: &Path) -> Self {
        Self { folder: root.join("objects"), seals: Seals::default() }
    }

    /// Where they are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the kernel checks them.
    pub fn are_sealed(&self) -> Result<bool, Error> {
        self.seals.are_possible(&self.folder)
    }

    /// A place for objects in the making, below a scratch folder.
    pub fn stage(&self, scratch: &Path) -> Result<Stage, Error> {
        std::fs::create_dir(scratch).map_err(Error::io("making folder", scratch))?;
        Ok(Stage::new(open_folder(scratch)?, open_folder(&self.folder)?, self.are_sealed()?))
    }

    /// Takes in what was staged. Everything of it has to be on disk; the caller syncs the folder.
    pub fn take_in(&self, scratch: &Path, objects: &[Object]) -> Result<(), Error> {
        let (from, to) = (open_folder(scratch)?, open_folder(&self.folder)?);
        for object in objects {
            let name = object.id.hex();
            // One that is there already, and the same file, stays as it is.
            renameat(&from, &name, &to, &name)
                .map_err(|error| Error::io("keeping object", self.folder.join(&name))(error.into()))?;
        }
        Ok(())
    }

    /// Removes objects.
    pub fn remove(&self, objects: &BTreeSet<ObjectId>) -> Result<(), Error> {
        for object in objects {
            let path = self.folder.join(object.hex());
            match rustix::fs::unlink(&path) {
                Ok(()) | Err(rustix::io::Errno::NOENT) => {}
                Err(error) => return Err(Error::io("removing object", &path)(error.into())),
            }
        }
        Ok(())
    }

    /// All objects that are here. Names that are no digest are passed over.
    pub fn all(&self) -> Result<BTreeSet<ObjectId>, Error> {
        let entries = std::fs::read_dir(&self.folder).map_err(Error::io("listing", &self.folder))?;
        Ok(entries.filter_map(|entry| Digest::from_hex(entry.ok()?.file_name().to_str()?).ok()).collect())
    }
}

fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io("opening", path)(error.into()))
}
