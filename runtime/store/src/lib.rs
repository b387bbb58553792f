//! Images and their layers: pulled, loaded, kept by content, mounted.
//!
//! - [`digest`]: SHA-256 digests, and streams that compute them
//! - [`error`]: what can go wrong, with Docker's wording where its clients show it
//! - [`image`]: what is known of an image
//! - [`progress`]: what a long operation tells meanwhile
//! - [`reference`]: names of images
//! - [`store`]: the store itself
#![deny(unsafe_code)]

pub mod digest;
pub mod error;
pub mod image;
pub mod progress;
pub mod reference;
pub mod store;

pub use digest::{Digest, ImageId};
pub use error::Error;
pub use image::{Healthcheck, Image, ImageConfig};
pub use progress::{Progress, Status};
pub use reference::Reference;
pub use store::{Auth, IdMap, Loaded, Options, Removed, Store};
