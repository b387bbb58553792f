//! Layers: archives in, folders out.
//!
//! - `archive`, `pax`, `sparse`: entries of a tar stream, under caps
//! - `assemble`, `recipe`: the archive put together again, byte for byte
//! - `codec`: gzip, zstd or none
//! - `depot`: the folders of complete layers, and those in the making
//! - `entry`: one entry made into a file
//! - `path`: paths of an archive, checked
//! - `unpack`: a whole stream unpacked

pub mod archive;
pub mod assemble;
pub mod codec;
pub mod depot;
mod entry;
mod path;
mod pax;
mod recipe;
mod sparse;
pub mod unpack;
