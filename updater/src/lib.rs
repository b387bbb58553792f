//! The updater: checks, downloads, verifies, writes, commits and rolls back whole-OS releases.
//!
//! - [`after_boot`]: what the boot before left behind, taken in
//! - [`area`]: a stretch of a device, perhaps in several pieces, as one run of bytes
//! - [`blocks`]: blocks of a file that is being written, against their digests
//! - [`bundle`]: a release in one file, in the place of a repository
//! - [`choose`]: which release to install
//! - [`containers`]: the containers that should run
//! - [`delta`]: what a new file has in common with those on the disk
//! - [`descriptions`]: descriptions of releases, kept for peers
//! - [`disk`]: the disk with the slots, and its partition table
//! - [`esp`]: UKIs on the EFI system partition
//! - [`extents`]: where partitions go that have become too small
//! - [`failure`]: why the updater refused or failed
//! - [`fallback`]: after a boot: did the new release come up, and if not, why
//! - [`fat`]: a FAT32 volume, written so that power may fail at any moment
//! - [`figures`]: what the updater has done so far
//! - [`gate`]: when a release on trial has proved itself
//! - [`history`]: every boot of this machine, and how it ended
//! - [`host`]: this host as the updater sees it
//! - [`install`]: carries out an install, in the order that makes power cuts harmless
//! - [`kexec`]: starting what boots next without the firmware
//! - [`minimum`]: the least version that this machine accepts
//! - [`mirrors`]: several places that have a repository's files
//! - [`network`]: whether this host is connected
//! - [`offline`]: installs without a repository
//! - [`operations`]: status, check, install and rollback
//! - [`pace`]: a bandwidth limit
//! - [`peers`]: the running release, served to peers
//! - [`plan`]: what an install will do, decided before anything is written
//! - [`plugged`]: bundles on disks that are plugged into the host
//! - [`preview`]: what an install would do, in bytes
//! - [`probe`]: the health checks of the machine config
//! - [`program`]: the process: a trial is watched, the history kept, the bus served
//! - [`pstore`]: what the kernel left behind when it panicked
//! - [`rollback`]: which release boots next, and how to change that
//! - [`rollout`]: what a host does about updates by itself, and when
//! - [`service`]: the D-Bus interface, one operation at a time
//! - [`source`]: where a repository's files come from
//! - [`state`]: what the updater remembers from boot to boot
//! - [`sys`]: the system call that no crate wraps
//! - [`tpm`]: what is kept in a TPM
//! - [`transfer`]: fetches what isn't on the disk, several requests at once
//! - [`trial`]: runs the gate against PID 1 and the health checks
//! - [`tuf`]: a client of The Update Framework
//! - [`uki`]: what is inside a unified kernel image
#![deny(unsafe_code)]

pub mod after_boot;
pub mod area;
pub mod blocks;
pub mod bundle;
pub mod choose;
pub mod containers;
pub mod delta;
pub mod descriptions;
pub mod disk;
pub mod esp;
pub mod extents;
pub mod failure;
pub mod fallback;
pub mod fat;
pub mod figures;
pub mod gate;
pub mod history;
pub mod host;
pub mod install;
pub mod kexec;
pub mod minimum;
pub mod mirrors;
pub mod network;
pub mod offline;
pub mod operations;
pub mod pace;
pub mod peers;
pub mod plan;
pub mod plugged;
pub mod preview;
pub mod probe;
pub mod program;
pub mod pstore;
pub mod rollback;
pub mod rollout;
pub mod service;
pub mod source;
pub mod state;
pub mod sys;
pub mod tpm;
pub mod transfer;
pub mod trial;
pub mod tuf;
pub mod uki;
