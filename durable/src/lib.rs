//! Files that survive a loss of power: written whole or not at all, read under a cap, moved aside where they can't be
//! understood.
//!
//! - `json`: values kept as JSON
//! - `replace`: bytes: temporary file, fsync, rename, fsync of the folder
#![forbid(unsafe_code)]

mod json;
mod replace;

pub use json::{Stored, read_json, write_json};
pub use replace::{read, remove, sync_folder, write, write_volatile};
