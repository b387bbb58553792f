//! A FAT32 volume (Microsoft Extensible Firmware Initiative FAT32 File System Specification 1.03), as much of it as the
//! EFI system partition needs, written so that power may fail at any moment.
//!
//! The kernel's vfat gives no order to its writes between two syncs, and a name that changes is removed in one sector
//! and added in another. Here every change that decides what boots is one write of one sector:
//!
//! - a file gets its clusters first, then, after a sync, its name;
//! - a name with all its long parts stays within one sector, and is changed within it where there is room; otherwise
//!   the new name comes first, then the old one goes;
//! - a file loses its name first, then, after a sync, its clusters.
//!
//! What a power cut leaves behind is clusters without a name, which [`Volume::reclaim`] frees, or one file with two
//! names, which [`Volume::remove`] knows of.
//!
//! - [`copy`]: a larger volume with all that is on another
//! - [`folder`]: entries of a folder, read and placed
//! - [`layout`]: where things are on a volume
//! - [`name`]: long names and their parts
//! - [`table`]: which cluster follows which
//! - [`volume`]: what can be done to a volume
pub mod copy;
pub mod folder;
pub mod layout;
pub mod name;
pub mod table;
pub mod volume;

pub use layout::FatError;
pub use volume::{File, Volume};
