//! Why a change of the network failed.

use std::io;
use std::path::PathBuf;

/// Why a change of the network failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A published port is in use.
    #[error("Bind for {address} failed: port is already allocated by {by}; publish another one")]
    PortTaken {
        /// Address, port and protocol.
        address: String,
        /// `container <id>` or `another program on the host`.
        by: String,
    },
    /// What was asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The thing named isn't there.
    #[error("{0}")]
    NotFound(String),
    /// A name is taken.
    #[error("{0}")]
    Conflict(String),
    /// The state of things, or a rule, doesn't allow it.
    #[error("{0}")]
    Forbidden(String),
    /// All addresses, or all ports to choose from, are taken.
    #[error("{0}")]
    Exhausted(String),
    /// The kernel refused a change.
    #[error("network: {step}")]
    Kernel {
        /// What was being done to what.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The state couldn't be kept.
    #[error("network state {path}: {step}")]
    State {
        /// Which file.
        path: PathBuf,
        /// What was being done.
        step: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

pub(crate) fn kernel(step: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel { step: step(), source }
}

pub(crate) fn invalid<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Invalid(reason.into()))
}
