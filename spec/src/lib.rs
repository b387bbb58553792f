//! What all parts of Keel agree on, as types. No I/O happens here.
//!
//! - [`api`]: JSON bodies of the host's own HTTP API, `/keel/v1/`
//! - [`blocks`]: digests of a file's blocks, for deltas
//! - [`bundle`]: a release in one file
//! - [`bus`]: D-Bus interfaces of the host programs (feature `bus`)
//! - [`cmdline`]: the kernel command line that a UKI carries
//! - [`config`]: the machine config, `keel.toml`
//! - [`control`]: messages of PID 1's control socket
//! - [`disk`]: partition types, labels and sizes
//! - [`gpt`]: GUID partition tables, read and written
//! - [`last_words`]: what PID 1 leaves for the next boot
//! - [`paths`]: where things are on a host
//! - [`release`]: versions, release descriptions and the file names of UKIs
//! - [`rollout`]: who gets a release and when, as its publisher signs it
//! - [`tuf`]: metadata of The Update Framework, and its canonical JSON
//! - [`verity`]: the geometry of a dm-verity hash tree
//! - [`zone`]: time zones by their IANA names
#![forbid(unsafe_code)]

pub mod api;
pub mod blocks;
pub mod bundle;
#[cfg(feature = "bus")]
pub mod bus;
pub mod cmdline;
pub mod config;
pub mod control;
pub mod disk;
pub mod gpt;
pub mod last_words;
pub mod paths;
pub mod release;
pub mod rollout;
pub mod tuf;
pub mod verity;
pub mod zone;
