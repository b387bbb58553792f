//! The updater: checks, downloads, verifies, writes, commits and rolls back whole-OS releases.
//!
//! - [`blocks`]: blocks of a root image against its hash tree
//! - [`choose`]: which release to install
//! - [`delta`]: what a new release has in common with the running one
//! - [`disk`]: the disk with the slots, and its partition table
//! - [`esp`]: UKIs on the EFI system partition
//! - [`failure`]: why the updater refused or failed
//! - [`fallback`]: after a boot: did the new release come up, and if not, why
//! - [`gate`]: when a release on trial has proved itself
//! - [`host`]: this host as the updater sees it
//! - [`install`]: carries out an install, in the order that makes power cuts harmless
//! - [`mount`]: the EFI system partition, mounted for a moment
//! - [`operations`]: status, check, install and rollback
//! - [`plan`]: what an install will do, decided before anything is written
//! - [`probe`]: the health checks of the machine config
//! - [`pstore`]: what the kernel left behind when it panicked
//! - [`rollback`]: which release boots next, and how to change that
//! - [`service`]: the D-Bus interface, one operation at a time
//! - [`source`]: where a repository's files come from
//! - [`state`]: what the updater remembers from boot to boot
//! - [`trial`]: runs the gate against PID 1 and the health checks
//! - [`tuf`]: a client of The Update Framework
//! - [`uki`]: the command line inside a unified kernel image
#![forbid(unsafe_code)]

pub mod blocks;
pub mod choose;
pub mod delta;
pub mod disk;
pub mod esp;
pub mod failure;
pub mod fallback;
pub mod gate;
pub mod host;
pub mod install;
pub mod mount;
pub mod operations;
pub mod plan;
pub mod probe;
pub mod pstore;
pub mod rollback;
pub mod service;
pub mod source;
pub mod state;
pub mod trial;
pub mod tuf;
pub mod uki;
