//! A server: one object on a unix socket, every client a peer-to-peer connection of its own.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{future, io};

use serde::Serialize;
use zbus::connection::Builder;
use zbus::object_server::Interface;
use zbus::{Connection, Guid, Message};
use zruntime::{Shared, SharedRuntime, Task, net};

use super::Error;
use super::stub::{self, Stub};

/// Most clients at a time; further ones are hung up on at once.
pub const MAX_CLIENTS: usize = 32;
/// Longest time that a client may take to authenticate.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time that a client may keep a signal waiting before it is hung up on.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause after a failed accept: it would fail again at once while descriptors are short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running server. Dropping it ends it: no new clients; those connected stay until they leave.
pub struct Server {
    emitter: Emitter,
    _accepting: Task<(), Shared>,
}

/// Sends signals to all clients of a server. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Emitter {
    object_path: Arc<str>,
    clients: Arc<Mutex<Clients>>,
}

/// Clients by number. `None` while one still authenticates.
#[derive(Default)]
struct Clients {
    next: u64,
    connections: BTreeMap<u64, Option<Connection>>,
}

/// Serves `interface` at `object_path` on a new socket at `path` (root only), replacing what was left there.
/// The clones of `interface`, one a client, share what they need to share behind an `Arc`.
pub async fn serve<I>(path: impl AsRef<Path>, object_path: &str, interface: I) -> Result<Server, Error>
where
    I: Interface + Clone,
{
    let path = path.as_ref();
    let refuse = |source| Error::Listen { path: path.display().to_string(), source };
    let runtime = SharedRuntime::current().map_err(Error::Runtime)?;
    let listener = listen(path).map_err(refuse)?;
    let listener = net::unix::UnixListener::from_std(&runtime, listener).map_err(refuse)?;
    let emitter = Emitter { object_path: object_path.into(), clients: Arc::default() };
    let accepting = runtime.spawn("bus server", accept(runtime.clone(), listener, emitter.clone(), interface));
    Ok(Server { emitter, _accepting: accepting })
}

impl Server {
    /// What sends signals to all clients.
    pub fn emitter(&self) -> Emitter {
        self.emitter.clone()
    }

    /// Goes on serving; never returns.
    pub async fn run(self) {
        future::pending().await
    }
}

/// A listening socket that only root can connect to. It gets its name when it is ready: no client is ever refused.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
    fs::rename(&fresh, path)?;
    Ok(listener)
}

async fn accept<I>(runtime: SharedRuntime, listener: net::unix::UnixListener<Shared>, emitter: Emitter, interface: I)
where
    I: Interface + Clone,
{
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream.into_std(),
            Err(error) => {
                log::warn!("cannot accept a client of {}: {error}", emitter.object_path);
                runtime.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(number) = emitter.admit() else {
            log::warn!("hung up on a client of {}: {MAX_CLIENTS} are connected already", emitter.object_path);
            continue;
        };
        let client = client(runtime.clone(), stream, emitter.clone(), number, interface.clone());
        runtime.spawn("bus client", client).detach();
    }
}

/// One client, from its handshake to its end.
async fn client<I: Interface>(runtime: SharedRuntime, stream: UnixStream, emitter: Emitter, number: u64, interface: I) {
    let name = I::name().as_str().trim_end_matches(|c: char| c.is_ascii_digit()).to_owned();
    let build = Builder::unix_stream(stream)
        .server(Guid::generate())
        .p2p()
        .serve_at(&*emitter.object_path, interface)
        .serve_at(stub::PATH, Stub { name })
        .build();
    match runtime.timeout(HANDSHAKE_TIMEOUT, build).await {
        Ok(Ok(connection)) => {
            emitter.lock().connections.insert(number, Some(connection.clone()));
            connection.closed().await;
        }
        Ok(Err(error)) => log::warn!("a client of {} could not be greeted: {error}", emitter.object_path),
        Err(_) => log::warn!("a client of {} did not authenticate in time", emitter.object_path),
    }
    emitter.lock().connections.remove(&number);
}

impl Emitter {
    /// Sends a signal of the served object to every client connected now. A client that doesn't take it within a
    /// second is hung up on.
    pub async fn emit<B>(&self, interface: &str, signal: &str, body: &B)
    where
        B: Serialize + zbus::DynamicType,
    {
        let Ok(runtime) = SharedRuntime::current() else { return };
        // With the sender's name: clients compare it with what the stub's GetNameOwner told them.
        let message = Message::signal(&*self.object_path, interface, signal).sender(stub::SERVER_NAME).build(body);
        let message = match message {
            Ok(message) => message,
            Err(error) => return log::error!("signal {signal} can't be written: {error}"),
        };
        let clients: Vec<_> = self.lock().connections.values().flatten().cloned().collect();
        for client in clients {
            let sending = client.send(&message);
            match runtime.timeout(SIGNAL_TIMEOUT, sending).await {
                Ok(Ok(())) => continue,
                Ok(Err(error)) => log::debug!("signal {signal} to a client: {error}"),
                Err(_) => log::warn!("hung up on a client that takes no signals"),
            }
            let _ = client.close().await;
        }
    }

    /// How many clients there are, those that still authenticate included.
    pub fn clients(&self) -> usize {
        self.lock().connections.len()
    }

    fn admit(&self) -> Option<u64> {
        let mut clients = self.lock();
        if clients.connections.len() >= MAX_CLIENTS {
            return None;
        }
        let number = clients.next;
        clients.next += 1;
        clients.connections.insert(number, None);
        Some(number)
    }

    fn lock(&self) -> MutexGuard<'_, Clients> {
        // Every change under the lock is one map operation: a panic elsewhere leaves it whole.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
