//! `keel-image`: turns Debian's kernel and our programs into a signed release and into disk images.
//!
//! - [`cpio`]: archives for the kernel's initramfs
//! - [`credentials`]: keys and certificates of the workstation, and a machine config with them
//! - [`disk`]: the verb that makes a disk image
//! - [`esp`]: the EFI system partition
//! - [`files`]: files and programs of the workstation
//! - [`inputs`]: Debian's packages, locked
//! - [`pe`]: adding sections to a PE image
//! - [`profile`]: which kernel modules go where
//! - [`progress`]: what a person sees while waiting
//! - [`publish`]: the update repository: keys, metadata, signing
//! - [`release`]: the verb that makes a release
//! - [`root`]: the root file system and the initrd
//! - [`tree`]: the hash tree over a root image
//! - [`uki`]: the unified kernel image
//! - [`vm`]: the verb that runs a disk image in a virtual machine
#![forbid(unsafe_code)]

pub mod cpio;
pub mod credentials;
pub mod disk;
pub mod esp;
pub mod files;
pub mod inputs;
pub mod pe;
pub mod profile;
pub mod progress;
pub mod publish;
pub mod release;
pub mod root;
pub mod tree;
pub mod uki;
pub mod vm;
