//! What all endpoints share.

use std::path::PathBuf;
use std::sync::Arc;

use keel_build::Builder;
use keel_engine::Engine;
use keel_spec::config::Settings;
use tokio::sync::Semaphore;

use crate::audit::Reads;
use crate::host::Host;

/// What all endpoints share.
pub struct Context {
    /// The containers.
    pub engine: Arc<Engine>,
    /// Images from Dockerfiles.
    pub builder: Arc<Builder>,
    /// The other programs of the host.
    pub host: Host,
    /// The machine config in force.
    pub settings: Settings,
    /// Where the API listens for TLS, if it does.
    pub tls_listen: Option<String>,
    /// Where images and containers are.
    pub state: PathBuf,
    /// Calls that changed nothing, for the audit log.
    pub reads: Arc<Reads>,
    /// Faults of this daemon's own start, for the status.
    pub problems: Vec<String>,
    /// Leave to block for long; see [`crate::call::long_permit`].
    pub long_calls: Arc<Semaphore>,
}
