//! The tree of an image in memory, made of the entries of its layers, lowest layer first.
//!
//! - `attributes`: what a file has beside its content
//! - `edit`: what entries and whiteouts do to a tree
//! - `erofs`: the tree as a read-only file system
//! - `node`: files and folders

mod attributes;
mod edit;
pub mod erofs;
mod node;

pub use attributes::Attributes;
pub use edit::{Refused, Tree};
pub use node::{Body, Device, Node, NodeId};
