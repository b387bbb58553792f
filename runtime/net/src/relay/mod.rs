//! Published ports on `::1`. Linux takes no answer for the IPv6 loopback from another interface (there is no
//! `route_localnet` for IPv6), so what comes there is taken here and passed on to the container, all of it by one thread.
//! Nothing of it outlives this program: when it is back its ports are opened anew, but what was under way has ended.
//!
//! - `plan`: which ports are relayed, pure
//! - `table`: open ports and what goes on at them; `stream`: TCP; `datagram`: UDP
//! - `server`: the thread

mod datagram;
mod plan;
mod server;
mod stream;
mod table;

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::Error;
use crate::error::kernel;
use crate::types::Sandbox;
use plan::Port;
use table::Table;

/// The relay. Its thread runs once there is a port.
#[derive(Default)]
pub(crate) struct Relay {
    running: OnceLock<Arc<Shared>>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay").field("is_running", &self.running.get().is_some()).finish()
    }
}

/// What the thread shares with those who open and close ports: it works with the table held, but never waits so. So
/// what is closed is closed at once.
struct Shared {
    epoll: OwnedFd,
    bell: OwnedFd,
    table: Mutex<Table>,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Relay {
    /// Opens and closes ports of a container, from one state to the other, in the calling thread's network namespace.
    /// `Err`: a port can't be opened; others are as they should be.
    pub(crate) fn follow(&self, id: &str, before: &Sandbox, after: &Sandbox) -> Result<(), Error> {
        let (old, new) = (plan::ports(before), plan::ports(after));
        if old == new || (new.is_empty() && self.running.get().is_none()) {
            return Ok(());
        }
        let shared = self.start().map_err(kernel(|| "start the relay of ports on ::1".into()))?;
        let mut table = shared.table();
        for port in old.keys().filter(|port| !new.contains_key(port)) {
            table.close(id, *port);
        }
        let mut done = Ok(());
        for (port, way) in new {
            if !table.retarget(id, port, &way.targets) {
                let opened =
                    table.open(&shared.epoll, id, port, way.targets).or_else(|e| explain(port, way.is_asked, e));
                done = done.and(opened);
            }
        }
        done
    }

    /// The caller holds the networks' lock, so that there is one thread at most.
    fn start(&self) -> io::Result<&Arc<Shared>> {
        if let Some(shared) = self.running.get() {
            return Ok(shared);
        }
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(table::BELL), epoll::EventFlags::IN)?;
        let shared = Arc::new(Shared { epoll, bell, table: Mutex::default() });
        server::start(shared.clone())?;
        Ok(self.running.get_or_init(|| shared))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(shared) = self.running.get() {
            shared.table().end();
            // The thread wakes and sees that; nobody is left to hear of a failure.
            let _ = rustix::io::write(&shared.bell, &1u64.to_ne_bytes());
        }
    }
}

/// Why a port can't be opened. Where `::1` wasn't named, all other addresses work without it.
fn explain(port: Port, is_asked: bool, e: io::Error) -> Result<(), Error> {
    let address = format!("[::1]:{}/{}", port.number, port.proto);
    if e.kind() == io::ErrorKind::AddrInUse {
        return Err(Error::PortTaken { address, by: "another program on the host".into() });
    }
    if is_asked {
        return Err(kernel(|| format!("open port {address}"))(e));
    }
    // A host without IPv6 has no such address.
    if e.kind() != io::ErrorKind::AddrNotAvailable
        && e.raw_os_error() != Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
    {
        log::warn!("port {address} isn't published: {e}");
    }
    Ok(())
}

/// Where a port is.
fn here(port: Port) -> SocketAddr {
    (Ipv6Addr::LOCALHOST, port.number).into()
}
