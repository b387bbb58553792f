//! Why something couldn't be done with a volume.

use std::io;

/// Why something couldn't be done with a volume.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It isn't there. In Docker's words, on which clients match.
    #[error("get {0}: no such volume")]
    NotFound(String),
    /// There is no such driver. In Docker's words.
    #[error("create {name}: error looking up volume plugin {driver:.60}: plugin \"{driver:.60}\" not found")]
    NoDriver {
        /// The volume.
        name: String,
        /// The driver.
        driver: String,
    },
    /// There is one of this name that is different.
    #[error("{0}")]
    Conflict(String),
    /// What was asked for makes no sense, or isn't served.
    #[error("{0}")]
    Invalid(String),
    /// The system refused.
    #[error("volume {name}: {step}")]
    System {
        /// Which volume.
        name: String,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn system(name: &str, step: &'static str) -> impl FnOnce(io::Error) -> Error {
    let name = name.to_owned();
    move |source| Error::System { name, step, source }
}
