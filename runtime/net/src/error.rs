//! Why a change of the network failed.

use std::io;
use std::path::PathBuf;

use crate::types::PortMap;

/// Why a change of the network failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A published port is in use.
    #[error("port {}/{} of the host is already in use by {by}; publish another one", port.host_port, port.proto)]
    PortTaken {
        /// The port that was asked for.
        port: PortMap,
        /// `container <id>` or `another program on the host`.
        by: String,
    },
    /// What was asked for can't be done.
    #[error("network of container {id}: {reason}")]
    Refused {
        /// The container.
        id: String,
        /// Why.
        reason: String,
    },
    /// All addresses, or all ports to choose from, are taken.
    #[error("network keel0: no free {0} left; remove containers")]
    Exhausted(&'static str),
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
