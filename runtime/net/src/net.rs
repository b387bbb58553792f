//! The networks of all containers: their start, and what is known of them.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dns::{self, Dns, Zone};
use crate::error::kernel;
use crate::inside::{self, inside};
use crate::netlink::Socket;
use crate::network::{DEFAULT, Driver, Network};
use crate::relay::Relay;
use crate::state::{State, Store};
use crate::types::{Endpoint, Sandbox};
use crate::{Error, bridge, firewall, ipam, link, route};

/// The networks of all containers. All methods may be called from any thread; they act on the network namespace of the
/// thread that calls them, which must be the one that called [`Net::open`].
#[derive(Debug)]
pub struct Net {
    pub(crate) store: Store,
    pub(crate) dns: Dns,
    pub(crate) relay: Relay,
    state: Mutex<State>,
}

impl Net {
    /// Sets up bridges, forwarding and translation rules, and reads what endpoints there were. [`Net::recover`] is to
    /// follow.
    pub fn open(folder: &Path) -> Result<Net, Error> {
        let store = Store::new(folder);
        let socket = route_socket()?;
        let mut state = match store.read()? {
            Some(state) => state,
            None => first_state()?,
        };
        choose_default_range(&socket, &store, &mut state)?;
        store.write_networks(&state)?;
        for network in state.bridges() {
            match bridge::ensure(&socket, network) {
                // One whose name or addresses the host has taken meanwhile leaves all others working.
                Err(e) if network.name != DEFAULT => log::error!("network {}: {e}", network.name),
                other => other?,
            }
        }
        firewall::replace(&state).map_err(kernel(|| "replace nf_tables table keel".into()))?;
        Ok(Net { store, dns: Dns::default(), relay: Relay::default(), state: Mutex::new(state) })
    }

    /// After a restart: keeps the endpoints of these containers and removes all others. Each comes with its namespace.
    pub fn recover(&self, alive: &[(String, OwnedFd)]) -> Result<(), Error> {
        let mut state = self.lock();
        let is_alive = |id: &String| alive.iter().any(|(known, _)| known == id);
        let gone: Vec<String> = state.sandboxes.keys().filter(|id| !is_alive(id)).cloned().collect();
        let socket = route_socket()?;
        for id in &gone {
            let Some(sandbox) = state.sandboxes.remove(id) else { continue };
            for endpoint in &sandbox.endpoints {
                let name = host_link(endpoint);
                link::remove(&socket, &name).map_err(kernel(|| format!("remove interface {name}")))?;
            }
        }
        for (id, sandbox) in &state.sandboxes {
            // Whoever took its port meanwhile has it.
            if let Err(e) = self.relay.follow(id, &Sandbox::default(), sandbox) {
                log::error!("container {id}: {e}");
            }
        }
        for (id, netns) in alive {
            let Some(sandbox) = state.sandboxes.get(id).filter(|sandbox| dns::has_names(&state, sandbox)) else {
                continue;
            };
            // One that can't be served has lost its names, but the others mustn't.
            if let Err(e) = inside(netns.as_fd(), dns::open).and_then(|sockets| self.dns.serve(id, sockets)) {
                let networks = sandbox.endpoints.len();
                log::error!("container {id}: in {networks} networks, but it can't find others by name: {e}");
            }
        }
        self.dns.publish(Zone::new(&state));
        if gone.is_empty() {
            return Ok(());
        }
        self.store.write_sandboxes(&state)?;
        firewall::replace(&state).map_err(kernel(|| "replace nf_tables table keel".into()))
    }

    /// What a container has of networks.
    pub fn sandbox(&self, id: &str) -> Option<Sandbox> {
        self.lock().sandboxes.get(id).cloned()
    }

    /// The network that `wanted` names: a name, an ID, or the beginning of an ID.
    pub fn find(&self, wanted: &str) -> Result<Network, Error> {
        self.lock().find(wanted).cloned()
    }

    /// All networks.
    pub fn networks(&self) -> Vec<Network> {
        self.lock().networks.clone()
    }

    /// The containers that are in a network now, by their IDs.
    pub fn members(&self, network: &str) -> Vec<(String, Endpoint)> {
        self.lock().members(network).map(|(id, endpoint)| (id.to_owned(), endpoint.clone())).collect()
    }

    /// The address under which containers find the host (`host-gateway`).
    pub fn host_gateway(&self) -> Option<std::net::IpAddr> {
        self.lock().find(DEFAULT).ok()?.pool(true)?.gateway
    }

    /// Tells the name server what has become of a container.
    pub(crate) fn publish_names(&self, state: &State, changed: &Sandbox) {
        if self.dns.is_running() && dns::has_names(state, changed) {
            self.dns.publish(Zone::new(state));
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is written whole before the lock is let go, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets up what a container has that is in no network, or in none that this engine knows of; for `sysctls` see
/// [`crate::Request`].
pub fn set_up_alone(netns: BorrowedFd<'_>, sysctls: &[(String, String)]) -> Result<(), Error> {
    let set_up = || {
        inside::loopback(&Socket::route()?)?;
        inside::parameters(sysctls)
    };
    inside(netns, set_up).map_err(kernel(|| "set up the loopback of a container".into()))
}

/// Name of the host's end of a link into a container.
pub(crate) fn host_link(endpoint: &Endpoint) -> String {
    // One letter for ours, and eleven digits: an interface's name has fifteen at most.
    format!("v{}", endpoint.id.get(..11).unwrap_or(&endpoint.id))
}

pub(crate) fn route_socket() -> Result<Socket, Error> {
    Socket::route().map_err(kernel(|| "open a netlink socket".into()))
}

/// A random ID, 64 hexadecimal digits.
pub(crate) fn random_id() -> Result<String, Error> {
    Ok(random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let read = |bytes: &mut [u8]| std::fs::File::open("/dev/urandom")?.read_exact(bytes);
    read(&mut bytes).map_err(kernel(|| "make a random ID".into()))?;
    Ok(bytes)
}

pub(crate) fn unix_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The networks that are always there; the default one's range is still to be chosen.
fn first_state() -> Result<State, Error> {
    let mut state = State { local_bits: random()?, ..State::default() };
    for (name, driver) in [(DEFAULT, Driver::Bridge), ("host", Driver::Host), ("none", Driver::Null)] {
        let (id, created_unix_ms) = (random_id()?, unix_ms());
        state.networks.push(Network { id, name: name.into(), created_unix_ms, ..Network::empty(driver) });
    }
    Ok(state)
}

/// Gives the default network a range that the host's routes don't overlap. One that is in use stays.
fn choose_default_range(socket: &Socket, store: &Store, state: &mut State) -> Result<(), Error> {
    let default = state.find(DEFAULT)?.clone();
    let before = link::index(socket, &default.bridge()).map_err(kernel(|| "look for the default bridge".into()))?;
    if before.is_some() && default.pool(true).is_some() {
        return Ok(());
    }
    let mut taken = routes(socket, state)?;
    taken.extend(state.networks.iter().filter(|n| n.id != default.id).flat_map(|n| &n.pools).map(|pool| pool.subnet));
    let last = default.pool(true).map(|pool| pool.subnet).or_else(|| store.range_before());
    let pool = ipam::choose(ipam::first_candidates(last), &taken)?;
    if let Some(network) = state.by_id_mut(&default.id) {
        network.pools = vec![pool];
    }
    Ok(())
}

/// What the host routes, but for our own bridges.
pub(crate) fn routes(socket: &Socket, state: &State) -> Result<Vec<crate::Cidr>, Error> {
    let list = || -> io::Result<_> {
        let mut ours = Vec::new();
        for network in state.bridges() {
            ours.extend(link::index(socket, &network.bridge())?);
        }
        route::list(socket, &ours)
    };
    list().map_err(kernel(|| "list the host's routes".into()))
}
