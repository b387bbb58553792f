//! The network of all containers on the bridge.

use std::io;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::ipam::{self, State, Store};
use crate::netlink::Socket;
use crate::{Endpoint, Error, PortMap, Proto, firewall, link};

/// Name of the bridge.
const BRIDGE: &str = "keel0";
/// Most published ports of a container.
const MAX_PORTS: usize = 1024;
/// Longest name of an interface but its closing zero (`IFNAMSIZ`), one letter for ours.
const ID_IN_NAME: usize = 11;

/// The network of all containers on the bridge `keel0`. All methods may be called from any thread; they act on the
/// network namespace of the thread that calls them, which must be the one that called [`Net::open`].
#[derive(Debug)]
pub struct Net {
    store: Store,
    bridge: u32,
    state: Mutex<State>,
}

impl Net {
    /// Sets up bridge, forwarding and translation rules, and reads what endpoints there were. [`Net::recover`] is to
    /// follow.
    pub fn open(state: &Path) -> Result<Net, Error> {
        let store = Store::new(state);
        let socket = Socket::route().map_err(kernel(|| "open a netlink socket".into()))?;
        let bridge_before = link::index(&socket, BRIDGE).map_err(kernel(|| format!("look for bridge {BRIDGE}")))?;
        let known = store.read()?;
        let state = match known {
            // Containers may be running on it: whatever routes came since, it stays.
            Some(state) if bridge_before.is_some() => state,
            known => {
                let routes = link::routes(&socket, bridge_before).map_err(kernel(|| "list routes".into()))?;
                let last = known.map(|s| s.subnet);
                let candidates: Vec<_> = last.into_iter().chain(ipam::CANDIDATES).collect();
                State::new(ipam::choose_subnet(&candidates, &routes).ok_or(Error::Exhausted("network"))?)
            }
        };
        let (gateway, prefix) = (state.subnet.gateway(), state.subnet.prefix);
        let bridge = link::ensure_bridge(&socket, BRIDGE, ipam::mac(gateway))
            .map_err(kernel(|| format!("make bridge {BRIDGE}")))?;
        link::add_address(&socket, bridge, gateway, prefix)
            .map_err(kernel(|| format!("give bridge {BRIDGE} the address {gateway}/{prefix}")))?;
        set_sysctl("net/ipv4/ip_forward")?;
        set_sysctl(&format!("net/ipv4/conf/{BRIDGE}/route_localnet"))?;
        store.write(&state)?;
        let net = Net { store, bridge, state: Mutex::new(state) };
        net.apply(&net.lock())?;
        Ok(net)
    }

    /// Gives a container an address, an interface `eth0` in its namespace, and its published ports. If it has an
    /// endpoint already, that goes first. Nothing is left behind by a failure.
    pub fn attach(
        &self,
        id: &str,
        netns: BorrowedFd<'_>,
        _hostname: &str,
        ports: &[PortMap],
    ) -> Result<Endpoint, Error> {
        let mut state = self.lock();
        let name = interface(id)?;
        self.detach_locked(&mut state, id)?;
        let ports = decide_ports(&state, id, ports)?;
        let ip = state.free_address()?;
        let subnet = state.subnet;
        let endpoint = Endpoint { ip, prefix: subnet.prefix, gateway: subnet.gateway(), mac: ipam::mac(ip), ports };
        state.endpoints.insert(id.into(), endpoint.clone());
        let done = self.store.write(&state).and_then(|()| {
            self.connect(id, &name, netns, &endpoint)?;
            self.apply(&state)
        });
        if let Err(e) = done {
            if let Err(undo) = self.detach_locked(&mut state, id) {
                log::warn!("network of container {id}: what a failed attachment left behind wasn't removed: {undo}");
            }
            return Err(e);
        }
        Ok(endpoint)
    }

    /// Takes a container off the network; one that isn't there is fine.
    pub fn detach(&self, id: &str) -> Result<(), Error> {
        self.detach_locked(&mut self.lock(), id)
    }

    /// A container's place.
    pub fn endpoint(&self, id: &str) -> Option<Endpoint> {
        self.lock().endpoints.get(id).cloned()
    }

    /// After a restart: keeps the endpoints of these containers and removes all others.
    pub fn recover(&self, alive: &[String]) -> Result<(), Error> {
        let mut state = self.lock();
        let gone: Vec<String> = state.endpoints.keys().filter(|id| !alive.contains(id)).cloned().collect();
        let socket = Socket::route().map_err(kernel(|| "open a netlink socket".into()))?;
        for id in &gone {
            let name = interface(id)?;
            link::remove(&socket, &name).map_err(kernel(|| format!("remove interface {name}")))?;
            state.endpoints.remove(id);
        }
        self.store.write(&state)?;
        self.apply(&state)
    }

    fn detach_locked(&self, state: &mut State, id: &str) -> Result<(), Error> {
        if state.endpoints.remove(id).is_none() {
            return Ok(());
        }
        // Rules first: nothing may be sent to an address that somebody else could get. Then all of the rest is tried,
        // whatever fails of it.
        let rules = self.apply(state);
        let name = interface(id)?;
        let removed = Socket::route()
            .and_then(|socket| link::remove(&socket, &name))
            .map_err(kernel(|| format!("remove interface {name}")));
        let written = self.store.write(state);
        rules.and(removed).and(written)
    }

    fn connect(&self, id: &str, name: &str, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
        let socket = Socket::route().map_err(kernel(|| "open a netlink socket".into()))?;
        link::make_pair(&socket, name, self.bridge, netns, endpoint.mac)
            .map_err(kernel(|| format!("make interfaces {name} and eth0 of container {id}")))?;
        inside(netns, || link::configure_inside(endpoint))
            .map_err(kernel(|| format!("set up eth0 with {} in container {id}", endpoint.ip)))
    }

    fn apply(&self, state: &State) -> Result<(), Error> {
        firewall::apply(BRIDGE, state.subnet, state.endpoints.values())
            .map_err(kernel(|| "replace nf_tables table keel".into()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is written whole before the lock is let go, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The ports of a container, those to choose chosen; refused before anything is done if one is taken.
fn decide_ports(state: &State, id: &str, wanted: &[PortMap]) -> Result<Vec<PortMap>, Error> {
    if wanted.len() > MAX_PORTS {
        let reason = format!("more than {MAX_PORTS} published ports");
        return Err(Error::Refused { id: id.into(), reason });
    }
    let mut own = state.clone();
    let nobody =
        Endpoint { ip: Ipv4Addr::UNSPECIFIED, prefix: 32, gateway: Ipv4Addr::UNSPECIFIED, mac: [0; 6], ports: vec![] };
    own.endpoints.insert(id.into(), nobody);
    for port in wanted {
        let refuse = |reason: String| Err(Error::Refused { id: id.into(), reason });
        let ip = match port.host_ip {
            Some(IpAddr::V6(ip)) => return refuse(format!("ports can't be published on IPv6 addresses yet ({ip})")),
            Some(IpAddr::V4(ip)) if !ip.is_unspecified() => Some(IpAddr::V4(ip)),
            _ => None,
        };
        if port.container_port == 0 {
            return refuse("port 0 of a container can't be published".into());
        }
        let bind = |number| listen(port.proto, ip, number);
        let host_port = if port.host_port == 0 {
            own.free_port(port.proto, |number| bind(number).is_ok())?
        } else {
            if let Some(other) = own.publisher(port.proto, ip, port.host_port) {
                return Err(Error::PortTaken { port: *port, by: format!("container {other}") });
            }
            match bind(port.host_port) {
                Ok(()) => port.host_port,
                Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                    return Err(Error::PortTaken { port: *port, by: "another program on the host".into() });
                }
                Err(e) => return refuse(format!("publish port {}/{}: {e}", port.host_port, port.proto)),
            }
        };
        let decided = PortMap { host_ip: ip, host_port, ..*port };
        if let Some(endpoint) = own.endpoints.get_mut(id) {
            endpoint.ports.push(decided);
        }
    }
    Ok(own.endpoints.remove(id).map(|e| e.ports).unwrap_or_default())
}

/// Whether a program on the host could listen on a port, so that none does.
fn listen(proto: Proto, ip: Option<IpAddr>, port: u16) -> io::Result<()> {
    let ip = ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    match proto {
        Proto::Tcp => TcpListener::bind((ip, port)).map(drop),
        Proto::Udp => UdpSocket::bind((ip, port)).map(drop),
    }
}

/// Runs something in another network namespace, on a thread of its own that ends there.
fn inside(netns: BorrowedFd<'_>, what: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, move || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
            what()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// Name of the host's interface for a container.
fn interface(id: &str) -> Result<String, Error> {
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        return Err(Error::Refused { id: id.into(), reason: "an ID has letters, digits, _ and - only".into() });
    }
    Ok(format!("v{}", &id[..id.len().min(ID_IN_NAME)]))
}

fn set_sysctl(name: &str) -> Result<(), Error> {
    std::fs::write(Path::new("/proc/sys").join(name), "1").map_err(kernel(|| format!("set {name} to 1")))
}

fn kernel(step: impl FnOnce() -> String) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Kernel { step: step(), source }
}
