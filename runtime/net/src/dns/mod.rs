//! Names of containers: a name server inside the namespace of each container that is in a network of a user's own, all
//! of them served by one thread. What it doesn't know it asks others, from the host.
//!
//! - `wire`: questions and answers as bytes
//! - `zone`: which names there are, and who sees them
//! - `listen`: sockets in containers' namespaces
//! - `server`: the thread; `forward`: questions passed on; `stream`: questions over TCP

mod forward;
mod listen;
mod server;
mod stream;
mod wire;
mod zone;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

pub(crate) use listen::{Sockets, open};
pub(crate) use zone::{Zone, has_names};

/// The name server. Its thread runs once there is a container to serve.
#[derive(Debug, Default)]
pub(crate) struct Dns {
    running: OnceLock<Arc<Shared>>,
}

/// What the thread shares with those who tell it what to do.
#[derive(Debug)]
struct Shared {
    bell: OwnedFd,
    orders: Mutex<Orders>,
}

/// What the thread is told.
#[derive(Debug, Default)]
struct Orders {
    zone: Arc<Zone>,
    come: Vec<(String, Sockets)>,
    gone: Vec<String>,
    end: bool,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring(&self) {
        // The counter can't overflow: the thread empties it, and each ring adds one.
        let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
    }
}

impl Dns {
    /// Serves a container.
    pub(crate) fn serve(&self, id: &str, sockets: Sockets) -> io::Result<()> {
        let shared = self.start()?;
        shared.orders().come.push((id.into(), sockets));
        shared.ring();
        Ok(())
    }

    /// Stops serving a container.
    pub(crate) fn forget(&self, id: &str) {
        if let Some(shared) = self.running.get() {
            let mut orders = shared.orders();
            orders.come.retain(|(known, _)| known != id);
            orders.gone.push(id.into());
            drop(orders);
            shared.ring();
        }
    }

    /// Whether anybody was ever served, so that names have to be kept.
    pub(crate) fn is_running(&self) -> bool {
        self.running.get().is_some()
    }

    /// Has these names answered for from now on.
    pub(crate) fn publish(&self, zone: Zone) {
        if let Some(shared) = self.running.get() {
            shared.orders().zone = Arc::new(zone);
        }
    }

    /// The caller holds the networks' lock, so that there is one thread at most.
    fn start(&self) -> io::Result<&Arc<Shared>> {
        if let Some(shared) = self.running.get() {
            return Ok(shared);
        }
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { bell, orders: Mutex::default() });
        server::start(shared.clone())?;
        Ok(self.running.get_or_init(|| shared))
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        if let Some(shared) = self.running.get() {
            shared.orders().end = true;
            shared.ring();
        }
    }
}
