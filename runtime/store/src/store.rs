//! The store itself.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::digest::ImageId;
use crate::error::Error;
use crate::image::Image;
use crate::progress::Progress;
use crate::reference::Reference;

/// How a store works.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `host[:port]` of registries that are spoken to without TLS.
    pub insecure_registries: Vec<String>,
    /// Further certificate authorities for registries, PEM.
    pub extra_ca_pem: Option<String>,
}

/// Credentials for a registry.
#[derive(Clone)]
pub enum Auth {
    /// User and password, for the registry itself or its token service.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// A token for the registry (Docker's `registrytoken`).
    Bearer(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(..)")
    }
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

/// One step of removing an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removed {
    /// This name is gone.
    Untagged(String),
    /// This image (`sha256:…`) or layer is gone.
    Deleted(String),
}

/// Images and layers under one folder. One process has it open at a time.
pub struct Store {}

impl Store {
    /// Opens the store in a folder, which is made if absent, and clears away what a crash left unfinished.
    pub fn open(_root: &Path, _options: Options) -> Result<Self, Error> {
        todo!()
    }
    /// Pulls an image. The callback is called from this thread only.
    pub fn pull(
        &self,
        _reference: &Reference,
        _auth: Option<&Auth>,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageId, Error> {
        todo!()
    }
    /// Takes in the images of a `docker save` archive.
    pub fn load(&self, _archive: &mut dyn Read, _progress: &mut dyn FnMut(Progress)) -> Result<Vec<Loaded>, Error> {
        todo!()
    }
    /// Makes an image with one layer of a root file system's tar archive.
    pub fn import(
        &self,
        _archive: &mut dyn Read,
        _name: Option<&Reference>,
        _progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageId, Error> {
        todo!()
    }
    /// All images, newest first.
    pub fn images(&self) -> Vec<Image> {
        todo!()
    }
    /// An image by name, ID or beginning of its ID.
    pub fn image(&self, _name_or_id: &str) -> Result<Image, Error> {
        todo!()
    }
    /// Gives an image a further name.
    pub fn tag(&self, _name_or_id: &str, _name: &Reference) -> Result<(), Error> {
        todo!()
    }
    /// Removes a name, and the image with its last one.
    pub fn remove(
        &self,
        _name_or_id: &str,
        _force: bool,
        _in_use: &dyn Fn(&ImageId) -> bool,
    ) -> Result<Vec<Removed>, Error> {
        todo!()
    }
    /// Mounts an image for one container: its layers read-only below, `upper/upper` above. The mount is detached,
    /// visible in no namespace until its descriptor is attached with `move_mount`.
    /// With a mapping, the host sees a file of the container's user n owned by `host_base + n`.
    pub fn mount(&self, _image: &ImageId, _upper: &Path, _mapping: Option<IdMap>) -> Result<OwnedFd, Error> {
        todo!()
    }
}
