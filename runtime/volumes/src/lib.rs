//! Volumes: folders that outlive their containers.
//!
//! - [`Volumes`] (`room`): they are made, found and removed
//! - `volume`: what is asked for of one, validated, and what is kept of it
//! - `source`: where a volume's files are, and what has to be mounted for that
//! - `copy`: an image's files become a new volume's
#![forbid(unsafe_code)]

mod copy;
mod error;
mod room;
mod source;
mod volume;

pub use copy::Owners;
pub use error::Error;
pub use room::Volumes;
pub use volume::{ANONYMOUS, Spec, Volume};
