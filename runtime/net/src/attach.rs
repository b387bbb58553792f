//! Containers come and go.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::error::{invalid, kernel};
use crate::inside::{self, inside};
use crate::link::{Inside, Sharing};
use crate::net::{Net, host_link, random_id, route_socket};
use crate::netlink::Socket;
use crate::network::{DEFAULT, Driver, Network};
use crate::state::State;
use crate::types::{Endpoint, Mac, Request, Sandbox, Wanted};
use crate::{Error, dns, firewall, ipam, link, parent, ports};

/// Most networks of one container.
const MAX_ENDPOINTS: usize = 64;

impl Net {
    /// Gives a container its places in networks, with interfaces in its namespace, and its published ports. If it has
    /// any already, those go first. Nothing is left behind by a failure.
    pub fn attach(&self, id: &str, netns: BorrowedFd<'_>, request: &Request) -> Result<Sandbox, Error> {
        let mut state = self.lock();
        self.detach_locked(&mut state, id)?;
        let sandbox = decide(&mut state, id, request)?;
        state.sandboxes.insert(id.into(), sandbox.clone());
        let done = self
            .store
            .write_sandboxes(&state)
            .and_then(|()| self.set_up(&state, id, netns, &sandbox, &request.sysctls));
        if let Err(e) = done {
            if let Err(undo) = self.detach_locked(&mut state, id) {
                log::warn!("network of container {id}: what a failed attachment left behind wasn't removed: {undo}");
            }
            return Err(e);
        }
        Ok(sandbox)
    }

    /// Takes a container off all networks; one that is in none is fine.
    pub fn detach(&self, id: &str) -> Result<(), Error> {
        self.detach_locked(&mut self.lock(), id)
    }

    fn detach_locked(&self, state: &mut State, id: &str) -> Result<(), Error> {
        let Some(sandbox) = state.sandboxes.remove(id) else { return Ok(()) };
        // Rules first: nothing may be sent to an address that somebody else could get. Then all of the rest is tried,
        // whatever fails of it.
        let rules = self.change_ports(state, id, &sandbox, &Sandbox::default());
        let mut removed = Ok(());
        for endpoint in &sandbox.endpoints {
            removed = removed.and(remove_link(endpoint));
        }
        if dns::has_names(state, &sandbox) {
            self.dns.forget(id);
            self.publish_names(state, &sandbox);
        }
        let written = self.store.write_sandboxes(state);
        rules.and(removed).and(written)
    }

    fn set_up(
        &self,
        state: &State,
        id: &str,
        netns: BorrowedFd<'_>,
        sandbox: &Sandbox,
        sysctls: &[(String, String)],
    ) -> Result<(), Error> {
        for endpoint in &sandbox.endpoints {
            make_link(state, id, netns, endpoint)?;
        }
        let set_up = || {
            let socket = Socket::route()?;
            inside::loopback(&socket)?;
            inside::parameters(sysctls)?;
            for endpoint in &sandbox.endpoints {
                inside::interface(&socket, endpoint)?;
            }
            inside::ways_out(&socket, sandbox)?;
            dns::has_names(state, sandbox).then(dns::open).transpose()
        };
        let sockets = inside(netns, set_up).map_err(kernel(|| format!("set up the network inside container {id}")))?;
        if let Some(sockets) = sockets {
            self.dns.serve(id, sockets).map_err(kernel(|| format!("serve names to container {id}")))?;
        }
        self.publish_names(state, sandbox);
        self.change_ports(state, id, &Sandbox::default(), sandbox)
    }

    /// Has the published ports lead to where they should, from one state to the other.
    pub(crate) fn change_ports(&self, state: &State, id: &str, before: &Sandbox, after: &Sandbox) -> Result<(), Error> {
        let relayed = self.relay.follow(id, before, after);
        let rules = firewall::change(before, after).or_else(|e| {
            log::warn!("table keel isn't as it was left ({e}): made anew");
            firewall::replace(state).map_err(kernel(|| "replace nf_tables table keel".into()))
        });
        rules.and(relayed)
    }
}

/// What a container gets, decided before anything is done.
fn decide(state: &mut State, id: &str, request: &Request) -> Result<Sandbox, Error> {
    if request.wanted.len() > MAX_ENDPOINTS {
        return invalid(format!("more than {MAX_ENDPOINTS} networks"));
    }
    let mut sandbox = Sandbox { servers: request.servers.clone(), ..Sandbox::default() };
    for wanted in &request.wanted {
        let endpoint = place(state, &sandbox, wanted)?;
        sandbox.endpoints.push(endpoint);
    }
    state.aim(&mut sandbox);
    if let Some(endpoint) = sandbox.published().cloned() {
        let binding = state.by_id(&endpoint.network).and_then(Network::binding);
        sandbox.ports = ports::decide(state, id, &request.ports, binding, endpoint.ip6.is_some())?;
    }
    Ok(sandbox)
}

/// A place in a network for a container that has these already.
pub(crate) fn place(state: &mut State, sandbox: &Sandbox, wanted: &Wanted) -> Result<Endpoint, Error> {
    let network = state.find(&wanted.network)?.clone();
    check_place(&network, sandbox, wanted)?;
    let taken = state.addresses(&network.id);
    let mut give = |v4: bool, fixed: Option<IpAddr>| -> Result<Option<(IpAddr, u8, Option<IpAddr>)>, Error> {
        let network = state.by_id_mut(&network.id);
        let pool = network.and_then(|n| n.pools.iter_mut().find(|pool| pool.subnet.is_v4() == v4));
        let Some(pool) = pool else { return Ok(None) };
        let gateway = pool.gateway;
        ipam::give(pool, &taken, fixed).map(|ip| Some((ip, pool.subnet.prefix(), gateway)))
    };
    let (v4, v6) = (give(true, wanted.ip.map(IpAddr::from))?, give(false, wanted.ip6.map(IpAddr::from))?);
    let Some((IpAddr::V4(ip), prefix, gateway)) = v4 else {
        return invalid(format!("network {} has no IPv4 subnet", network.name));
    };
    // ipvlan's routed modes take no part in finding neighbours, so there is none to lead out.
    let leads = !network.internal && !matches!(sharing(&network), Some(Sharing::Ipvlan(1 | 2, _)));
    let (ip6, prefix6, gateway6) = match v6 {
        Some((IpAddr::V6(ip), prefix, gateway)) => (Some(ip), prefix, gateway),
        _ => (None, 0, None),
    };
    Ok(Endpoint {
        id: random_id()?,
        network: network.id.clone(),
        network_name: network.name.clone(),
        interface: free_name(sandbox, network.interface_prefix()),
        ip,
        prefix,
        gateway: gateway.and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None }).filter(|_| leads),
        ip6,
        prefix6,
        gateway6: gateway6.and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None }).filter(|_| leads),
        link_local: wanted.link_local.clone(),
        mac: match network.driver {
            Driver::Ipvlan => Mac::SHARED,
            _ => wanted.mac.unwrap_or_else(|| ipam::mac(ip.into())),
        },
        names: wanted.names.clone(),
        links: wanted.links.clone(),
        priority: wanted.priority,
    })
}

/// What of a wish can be refused before an address is looked for; Docker's words where clients know them.
pub(crate) fn check_place(network: &Network, sandbox: &Sandbox, wanted: &Wanted) -> Result<(), Error> {
    if matches!(network.driver, Driver::Host | Driver::Null) {
        return invalid(format!("a container that is in network {} can't be in others", network.name));
    }
    if sandbox.endpoint(&network.id).is_some() {
        return Err(Error::Forbidden(format!("endpoint already exists in network {}", network.name)));
    }
    if wanted.ip.is_some() || wanted.ip6.is_some() {
        if network.name == DEFAULT {
            return invalid("invalid config: user specified IP address is supported on user defined networks only");
        }
        let asked = |v4: bool| network.pool(v4).is_some_and(|pool| pool.asked);
        if (wanted.ip.is_some() && !asked(true)) || (wanted.ip6.is_some() && !asked(false)) {
            return invalid(
                "invalid config: user specified IP address is supported only when connecting to networks with user \
                 configured subnets",
            );
        }
    }
    if wanted.mac.is_some() && network.driver == Driver::Ipvlan {
        return invalid("ipvlan interfaces share their parent's Ethernet address: leave --mac-address out");
    }
    Ok(())
}

/// The first of `eth0`, `eth1`, … that isn't taken.
fn free_name(sandbox: &Sandbox, prefix: &str) -> String {
    let taken = |name: &String| sandbox.endpoints.iter().any(|endpoint| endpoint.interface == *name);
    let mut names = (0..=MAX_ENDPOINTS).map(|number| format!("{prefix}{number}"));
    names.find(|name| !taken(name)).unwrap_or_else(|| format!("{prefix}x"))
}

/// How a network's links share the host's.
fn sharing(network: &Network) -> Option<Sharing> {
    let option = |name: &str| network.options.get(name).map_or("", String::as_str);
    match network.driver {
        Driver::Macvlan => Some(Sharing::Macvlan(match option("macvlan_mode") {
            "private" => 1,
            "vepa" => 2,
            "passthru" => 8,
            _ => 4,
        })),
        Driver::Ipvlan => {
            let mode = match option("ipvlan_mode") {
                "l3" => 1,
                "l3s" => 2,
                _ => 0,
            };
            let flags = match option("ipvlan_flag") {
                "private" => 1,
                "vepa" => 2,
                _ => 0,
            };
            Some(Sharing::Ipvlan(mode, flags))
        }
        _ => None,
    }
}

/// Makes an endpoint's interface, which is born in the container's namespace.
pub(crate) fn make_link(state: &State, id: &str, netns: BorrowedFd<'_>, endpoint: &Endpoint) -> Result<(), Error> {
    let missing = || Error::NotFound(format!("network {} not found", endpoint.network));
    let network = state.by_id(&endpoint.network).ok_or_else(missing)?;
    let socket = route_socket()?;
    let step = || format!("make interface {} of container {id} in network {}", endpoint.interface, network.name);
    let mac = Some(endpoint.mac).filter(|mac| *mac != Mac::SHARED);
    let host_link = host_link(endpoint);
    match sharing(network) {
        Some(sharing) => {
            let parent = parent::ensure(&socket, network)?;
            // The host may have an interface of the container's name: `eth0`, most often.
            let link = Inside { netns, name: &host_link, mac, mtu: network.mtu() };
            link::make_shared(&socket, parent, sharing, link).map_err(kernel(step))?;
            let rename = || link::rename(&Socket::route()?, &host_link, &endpoint.interface);
            inside(netns, rename).map_err(kernel(step))
        }
        None => {
            let bridge = link::index_of(&socket, &network.bridge()).map_err(kernel(step))?;
            let link = Inside { netns, name: &endpoint.interface, mac, mtu: network.mtu() };
            link::make_pair(&socket, &host_link, bridge, !network.talks(), link).map_err(kernel(step))
        }
    }
}

/// Removes an endpoint's interface by its end on the host. One without such an end goes with its namespace.
pub(crate) fn remove_link(endpoint: &Endpoint) -> Result<(), Error> {
    let name = host_link(endpoint);
    let socket = route_socket()?;
    link::remove(&socket, &name).map_err(kernel(|| format!("remove interface {name}")))
}
