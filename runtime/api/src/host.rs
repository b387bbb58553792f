//! The other programs of the host: PID 1 over its control socket, provisioning and updater over D-Bus.
//!
//! Connections are made when they are first needed and made anew after they broke.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use keel_link::bus;
use keel_link::control::{self, Client};
use keel_spec::api::ErrorCode;
use keel_spec::api::boots::Boot;
use keel_spec::bus::{HostProxy, UpdaterProxy};
use keel_spec::paths;
use zbus::Connection;
use zbus::proxy::CacheProperties;

use crate::boots;
use crate::call::blocking;
use crate::respond::Failure;

/// Longest wait for a program of the host to take a connection. They are up before anybody asks, or down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for an answer that needs no network.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The other programs of the host.
pub struct Host {
    control: Option<Arc<std::sync::Mutex<Option<Client>>>>,
    updater: Peer,
    provisioning: Peer,
}

/// One program on its D-Bus socket.
struct Peer {
    what: &'static str,
    path: PathBuf,
    connection: tokio::sync::Mutex<Option<Connection>>,
}

impl Host {
    /// The programs of this host. `supervised`: PID 1 is Keel's and knows this process.
    pub fn new(supervised: bool) -> Self {
        Self {
            control: supervised.then(Arc::default),
            updater: Peer::new("updater", paths::UPDATER_BUS),
            provisioning: Peer::new("provisioning service", paths::HOST_BUS),
        }
    }

    /// Asks PID 1.
    pub async fn control<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Client) -> control::Result<T> + Send + 'static,
    ) -> Result<T, Failure> {
        let Some(shared) = self.control.clone() else {
            return Err(Failure::unavailable(
                "this daemon does not run under Keel's PID 1: it knows nothing of the host",
            ));
        };
        blocking(move || {
            let mut client = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let client = match &mut *client {
                Some(client) => client,
                none => none.insert(Client::connect().map_err(control_failure)?),
            };
            ask(client).map_err(control_failure)
        })
        .await
    }

    /// The updater's proxy.
    pub async fn updater(&self) -> Result<UpdaterProxy<'static>, Failure> {
        let connection = self.updater.connection().await?;
        let proxy = async {
            UpdaterProxy::builder(&connection)
                .destination("org.keel.Updater")
                .cache_properties(CacheProperties::No)
                .build()
                .await
        };
        proxy.await.map_err(|error| bus_failure(&error))
    }

    /// Asks the updater something that it answers from what it knows.
    pub async fn updater_status(&self) -> Result<String, Failure> {
        let proxy = self.updater().await?;
        answer(&self.updater, proxy.status()).await
    }

    /// Boots of this machine, newest first.
    pub async fn boots(&self) -> Result<Vec<Boot>, Failure> {
        let proxy = self.updater().await?;
        boots::parse(&answer(&self.updater, proxy.boots()).await?)
    }

    /// What was said last in a boot.
    pub async fn boot_log(&self, number: u64) -> Result<String, Failure> {
        let proxy = self.updater().await?;
        answer(&self.updater, proxy.boot_log(number)).await
    }

    /// Where the config in force was read from, and why a newer one was refused.
    pub async fn config_source(&self) -> Result<(String, String), Failure> {
        let connection = self.provisioning.connection().await?;
        let proxy = async {
            HostProxy::builder(&connection)
                .destination("org.keel.Host")
                .cache_properties(CacheProperties::No)
                .build()
                .await
        };
        let proxy = proxy.await.map_err(|error| bus_failure(&error))?;
        answer(&self.provisioning, proxy.config_source()).await
    }
}

async fn answer<T>(peer: &Peer, ask: impl Future<Output = zbus::Result<T>>) -> Result<T, Failure> {
    match tokio::time::timeout(ANSWER_TIMEOUT, ask).await {
        Ok(answer) => answer.map_err(|error| bus_failure(&error)),
        Err(_) => {
            Err(Failure::unavailable(format!("the {} did not answer within {} s", peer.what, ANSWER_TIMEOUT.as_secs())))
        }
    }
}

impl Peer {
    fn new(what: &'static str, path: &str) -> Self {
        Self { what, path: Path::new(path).to_owned(), connection: tokio::sync::Mutex::default() }
    }

    /// The connection that there is, or a new one where there is none or it broke.
    async fn connection(&self) -> Result<Connection, Failure> {
        let mut known = self.connection.lock().await;
        if let Some(connection) = known.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(connection.clone());
        }
        let down = |why: &str| {
            Failure::unavailable(format!(
                "the {} is not reachable at {}: {why}; see `keelctl services`",
                self.what,
                self.path.display()
            ))
        };
        if !self.path.exists() {
            return Err(down("it has no socket"));
        }
        match tokio::time::timeout(CONNECT_TIMEOUT, bus::connect(&self.path)).await {
            Ok(Ok(connection)) => Ok(known.insert(connection).clone()),
            Ok(Err(error)) => Err(down(&keel_link::logger::chain(&error))),
            Err(_) => Err(down("it takes no connections")),
        }
    }
}

/// A failed D-Bus call, with the kind that the served method gave it.
pub fn bus_failure(error: &zbus::Error) -> Failure {
    Failure::from(bus::to_api_error(error))
}

fn control_failure(error: control::Error) -> Failure {
    let code = match &error {
        control::Error::Refused(_) => ErrorCode::Conflict,
        _ => ErrorCode::Unavailable,
    };
    Failure::new(code, keel_link::logger::chain(&error))
}
