//! Images and their layers: pulled, loaded, kept by content, mounted.
//!
//! - [`digest`]: SHA-256 digests, and streams that compute them
//! - [`error`]: what can go wrong, with Docker's wording where its clients show it
//! - [`image`]: what is known of an image
//! - `layer`: layers: archives in, folders out
//! - `load`: archives of `docker save`
//! - `model`: JSON of registries and archives
//! - `mount`: an image mounted for one container
//! - [`progress`]: what a long operation tells meanwhile
//! - `records`: which images there are and what they are called
//! - [`reference`]: names of images
//! - `registry`: images pulled from registries
//! - `remove`: what removing an image means
//! - [`store`]: the store itself
//! - `sys`: system calls without a safe wrapper
//! - `userns`: ID mappings in the shape that the kernel takes
#![deny(unsafe_code)]

pub mod digest;
pub mod error;
pub mod image;
mod layer;
mod load;
mod model;
mod mount;
pub mod progress;
mod records;
pub mod reference;
mod registry;
mod remove;
pub mod store;
mod sys;
mod userns;

pub use digest::{Digest, ImageId};
pub use error::Error;
pub use image::{Healthcheck, Image, ImageConfig};
pub use progress::{Progress, Status};
pub use reference::Reference;
pub use store::{Auth, IdMap, Loaded, Options, Removed, Store};
