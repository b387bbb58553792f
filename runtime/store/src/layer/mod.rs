//! Layers: archives in, folders out.
//!
//! - `archive`: entries of a tar stream, under caps
//! - `codec`: gzip, zstd or none
//! - `depot`: the folders of complete layers, and those in the making
//! - `entry`: one entry made into a file
//! - `path`: paths of an archive, checked
//! - `unpack`: a whole stream unpacked

pub mod archive;
pub mod codec;
pub mod depot;
mod entry;
mod path;
pub mod unpack;
