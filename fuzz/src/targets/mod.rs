//! The parsers, with inputs to begin with and what must hold of what they accept.
//!
//! - [`build`]: Dockerfiles, `.dockerignore`
//! - [`config`]: the machine config, kernel command lines, control messages
//! - [`disk`]: partition tables, hash trees, UKIs
//! - [`http`]: answers of web servers, and their ranges
//! - [`peers`]: requests of other hosts, plugged-in disks
//! - [`release`]: release descriptions and names
//! - [`store`]: names, manifests, configs and layers of images
//! - [`tpm`]: answers of a TPM
//! - [`tuf`]: metadata of The Update Framework

mod build;
mod config;
mod disk;
mod http;
mod peers;
mod release;
mod store;
mod tpm;
mod tuf;

use crate::runner::Target;

/// All of them.
pub fn all() -> Vec<Target> {
    let rooms: [&[Target]; 9] = [
        &build::TARGETS,
        &config::TARGETS,
        &disk::TARGETS,
        &http::TARGETS,
        &peers::TARGETS,
        &release::TARGETS,
        &store::TARGETS,
        &tpm::TARGETS,
        &tuf::TARGETS,
    ];
    rooms.concat()
}

/// The kind of an error, or that there was none.
fn answer<T, E: std::fmt::Display>(outcome: Result<T, E>) -> String {
    outcome.map_or_else(|error| error.to_string(), |_| "accepted".into())
}
