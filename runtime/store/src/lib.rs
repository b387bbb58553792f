//! Images and their layers: pulled, loaded, kept by content, mounted.
//!
//! - [`create`]: images made here: imports, commits
//! - [`digest`]: SHA-256 digests, and streams that compute them
//! - [`draft`]: images in the making
//! - [`error`]: what can go wrong, with Docker's wording where its clients show it
//! - `fuzzing`: the parsers, for tests that change their input
//! - [`image`]: what is known of an image
//! - `layer`: layers: archives in, recipes and objects out
//! - `load`: archives of `docker save`
//! - `model`: JSON of registries and archives
//! - `mount`: an image mounted for one container
//! - `mounts`: trees mounted once each
//! - `objects`: files that are kept once for all images
//! - [`progress`]: what a long operation tells meanwhile
//! - `records`: which images there are and what they are called
//! - [`reference`]: names of images
//! - [`registry`]: images pulled from registries and pushed to them
//! - [`remote`]: what the store does with registries
//! - `remove`: what removing an image means
//! - [`save`]: images as an archive
//! - [`store`]: the store itself
//! - `sys`: system calls without a safe wrapper
//! - `tree`: the tree of an image, in memory and as a file system
//! - `trees`: the files of images' trees
//! - [`usage`]: what images take on disk
//! - `userns`: ID mappings in the shape that the kernel takes
//! - `verity`: the digest by which fs-verity knows a file
#![deny(unsafe_code)]

pub mod create;
pub mod digest;
pub mod draft;
pub mod error;
#[doc(hidden)]
pub mod fuzzing;
pub mod image;
mod layer;
mod load;
mod model;
mod mount;
mod mounts;
mod objects;
pub mod progress;
mod records;
pub mod reference;
pub mod registry;
pub mod remote;
mod remove;
pub mod save;
pub mod store;
mod sys;
mod tree;
mod trees;
pub mod usage;
mod userns;
mod verity;

pub use create::{Commit, Import};
pub use digest::{Digest, ImageId};
pub use draft::{Draft, Held};
pub use error::Error;
pub use image::{Healthcheck, Image, ImageConfig};
pub use keel_fetch::Proxies;
pub use layer::archive::Archive;
pub use layer::codec::Decoder;
pub use layer::head::{Head, Kind};
pub use model::runs_here;
pub use progress::{Progress, Status};
pub use reference::Reference;
pub use remote::{Auth, Pull};
pub use store::{IdMap, Loaded, Options, Pins, Removed, Store};
