//! Files and folders of a tree.

use std::collections::BTreeMap;

use super::attributes::Attributes;
use crate::digest::ObjectId;

/// Number of a node of its tree.
pub type NodeId = u32;

/// Kinds of special files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// Character device.
    Char,
    /// Block device.
    Block,
    /// Named pipe.
    Fifo,
}

/// What a file is, and where its content lies.
#[derive(Debug)]
pub enum Body {
    /// A folder: its names, sorted.
    Folder(BTreeMap<Box<[u8]>, NodeId>),
    /// Content that is kept with the metadata: where it lies in the spool (offset and length in bytes).
    Inline(u64, u16),
    /// Content that is an object, and its length in bytes.
    Object(ObjectId, u64),
    /// A symbolic link: its target.
    Symlink(Box<[u8]>),
    /// A special file, with its device number as the kernel packs it (`new_encode_dev`).
    Special(Device, u32),
}

/// A file or folder.
#[derive(Debug)]
pub struct Node {
    /// Owner, mode, times, extended attributes.
    pub attributes: Attributes,
    /// What it is.
    pub body: Body,
    /// How many names it has; 0: it is gone.
    pub links: u32,
    /// The last layer that has an entry of it or below it.
    pub(super) layer: u16,
    /// The last layer that hid everything lower in this folder.
    pub(super) hidden: Option<u16>,
}

impl Body {
    /// The names of a folder; `None`: something else.
    pub fn names(&self) -> Option<&BTreeMap<Box<[u8]>, NodeId>> {
        match self {
            Self::Folder(names) => Some(names),
            _ => None,
        }
    }

    /// Bytes that it takes in memory beside the node; names are counted where they come and go.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Symlink(target) => target.len(),
            _ => 0,
        }
    }

    pub(super) fn names_mut(&mut self) -> Option<&mut BTreeMap<Box<[u8]>, NodeId>> {
        match self {
            Self::Folder(names) => Some(names),
            _ => None,
        }
    }
}
