//! D-Bus between host programs, peer to peer: no bus daemon, one unix socket per serving program.
//!
//! - [`serve`]: one object on a socket, for up to [`MAX_CLIENTS`] clients
//! - [`connect`]: a client's connection, for the proxies of `keel_spec::bus`
//! - [`Failure`]: error names under `org.keel.Error.`, both ways
//!
//! All of it runs on the small runtime that zbus brings along: inside [`block_on`] on the calling thread, otherwise on
//! one helper thread. So [`serve`] and [`connect`] work under any executor, but a served method must not block: long
//! work goes to a thread of its own (or through [`unblock`]).

mod failure;
mod serve;
mod stub;

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use keel_spec::api::ErrorCode;
use keel_spec::config::Settings;
use zbus::Connection;
use zbus::connection::Builder;
use zruntime::SharedRuntime;

pub use failure::{Failure, error, to_api_error};
pub use serve::{Emitter, MAX_CLIENTS, Server, serve};
pub use zbus::block_on;
pub use zruntime::unblock;

/// How long [`connect`] goes on trying to reach a server that isn't there yet.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Longest wait for the answer to [`settings`].
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a connection or a server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's socket could not be made.
    #[error("cannot listen on {path}")]
    Listen {
        /// The socket.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody answered in time.
    #[error("no answer on {path} within {} s: is its service up?", CONNECT_TIMEOUT.as_secs())]
    NoAnswer {
        /// The socket.
        path: String,
        /// The last failure, where there was one.
        source: Option<zbus::Error>,
    },
    /// The runtime that drives connections could not be made.
    #[error("cannot make a runtime for D-Bus")]
    Runtime(#[source] io::Error),
    /// A call failed.
    #[error("{what} failed")]
    Call {
        /// What was asked for.
        what: &'static str,
        /// Why.
        source: zbus::Error,
    },
    /// What was answered can't be read.
    #[error("the host's settings can't be read")]
    Settings(#[source] serde_json::Error),
}

impl Error {
    /// The failure's kind, as the HTTP API and `keelctl` tell it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NoAnswer { .. } => ErrorCode::Unavailable,
            Self::Call { source, .. } => to_api_error(source).code,
            Self::Listen { .. } | Self::Runtime(_) | Self::Settings(_) => ErrorCode::Internal,
        }
    }
}

/// Connects to the server on the socket at `path`, trying again for up to [`CONNECT_TIMEOUT`] while it isn't there yet.
pub async fn connect(path: impl AsRef<Path>) -> Result<Connection, Error> {
    let path = path.as_ref();
    let runtime = SharedRuntime::current().map_err(Error::Runtime)?;
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    let mut last = None;
    while Instant::now() < deadline {
        match runtime.timeout_at(deadline, connect_once(path)).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => last = Some(error),
            Err(_) => break,
        }
        runtime.sleep(RETRY_PAUSE).await;
    }
    Err(Error::NoAnswer { path: path.display().to_string(), source: last })
}

async fn connect_once(path: &Path) -> zbus::Result<Connection> {
    // Connecting to a unix socket doesn't wait, unless the server's backlog is full.
    let stream = std::os::unix::net::UnixStream::connect(path)?;
    Builder::unix_stream(stream).p2p().build().await
}

/// The validated machine config, asked of the provisioning service. Blocks for up to 20 s; not for use inside
/// [`block_on`] or a served method ([`settings_async`] is).
pub fn settings() -> Result<Settings, Error> {
    block_on(settings_async())
}

/// The validated machine config, asked of the provisioning service.
pub async fn settings_async() -> Result<Settings, Error> {
    const WHAT: &str = "asking the provisioning service for the settings";
    let connection = connect(keel_spec::paths::HOST_BUS).await?;
    let runtime = SharedRuntime::current().map_err(Error::Runtime)?;
    let ask = async {
        // Properties would be fetched ahead by default; there are none, and peers need no such match rules.
        let host = keel_spec::bus::HostProxy::builder(&connection)
            .destination("org.keel.Host")
            .cache_properties(zbus::proxy::CacheProperties::No)
            .build()
            .await?;
        host.settings().await
    };
    let json = match runtime.timeout(SETTINGS_TIMEOUT, ask).await {
        Ok(answer) => answer.map_err(|source| Error::Call { what: WHAT, source })?,
        Err(_) => return Err(Error::NoAnswer { path: keel_spec::paths::HOST_BUS.into(), source: None }),
    };
    serde_json::from_str(&json).map_err(Error::Settings)
}
