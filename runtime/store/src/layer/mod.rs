//! Layers: archives in, recipes and objects out.
//!
//! - `archive`, `head`, `pax`, `sparse`: entries of a tar stream, under caps
//! - `assemble`, `recipe`: the archive put together again, byte for byte
//! - `codec`: compressed or not, told by the first bytes
//! - `depot`: what is kept of layers, and layers in the making
//! - `path`: paths of an archive, checked
//! - `replay`: the entries of a layer read again
//! - `unpack`: a whole stream unpacked
//! - `walk`: entries put into a tree
//! - `xz`: one of the compressions

pub mod archive;
pub mod assemble;
pub mod codec;
pub mod depot;
pub mod head;
pub mod path;
mod pax;
mod recipe;
pub mod replay;
pub mod sparse;
pub mod unpack;
pub mod walk;
mod xz;
