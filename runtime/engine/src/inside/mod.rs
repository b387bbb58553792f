//! Files of a container, from outside: paths that can't lead out of its root, archives out of it and into it, and
//! what it has changed of its image.
//!
//! - [`root`]: a root and what lies in it
//! - [`place`]: a path that a client named
//! - [`attributes`]: extended attributes
//! - [`pack`]: a part of the tree as an archive
//! - [`unpack`]: an archive into the tree
//! - [`creator`]: making files as the container's root
//! - [`changes`]: what differs from the image
//! - [`stream`]: what is written here while it is read there

pub mod attributes;
pub mod changes;
pub mod creator;
pub mod pack;
pub mod place;
pub mod root;
pub mod stream;
pub mod unpack;

#[cfg(test)]
mod tests;
