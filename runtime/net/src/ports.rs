//! Which ports of the host are whose. Refused before anything is done if one is taken.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, SocketType, bind, ipproto, socket_with, sockopt};

use crate::error::{Error, invalid};
use crate::state::State;
use crate::types::{PortMap, Proto};

/// Ports that one is chosen from (RFC 6335's dynamic range, but for its first, 49152).
const CHOSEN: std::ops::RangeInclusive<u16> = 49153..=65535;
/// Most published ports of a container.
const MAX_PORTS: usize = 1024;

/// The ports of the host that containers have.
struct Taken(HashMap<(Proto, u16), Vec<Holder>>);

/// On which address, and whose.
type Holder = (Option<IpAddr>, String);

impl Taken {
    fn of(state: &State, but: &str) -> Self {
        let mut taken = Self(HashMap::new());
        for (id, sandbox) in state.sandboxes.iter().filter(|(id, _)| *id != but) {
            for port in &sandbox.ports {
                taken.add(port, id);
            }
        }
        taken
    }

    fn add(&mut self, port: &PortMap, id: &str) {
        self.0.entry((port.proto, port.host_port)).or_default().push((port.host_ip, id.into()));
    }

    /// The container that has a port already, on the same or on all addresses.
    fn holder(&self, proto: Proto, ip: Option<IpAddr>, port: u16) -> Option<&str> {
        let holders = self.0.get(&(proto, port))?;
        holders.iter().find(|(other, _)| clash(*other, ip)).map(|(_, id)| id.as_str())
    }
}

/// Whether two bindings of one port have an address in common.
fn clash(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => {
            one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
        }
        _ => true,
    }
}

/// The ports of a container, those to choose chosen. `binding`: the address for those that name none; `v6`: whether it
/// has an IPv6 address.
pub(crate) fn decide(
    state: &mut State,
    id: &str,
    wanted: &[PortMap],
    binding: Option<IpAddr>,
    v6: bool,
) -> Result<Vec<PortMap>, Error> {
    if wanted.len() > MAX_PORTS {
        return invalid(format!("more than {MAX_PORTS} published ports"));
    }
    let mut taken = Taken::of(state, id);
    let mut decided: Vec<PortMap> = Vec::with_capacity(wanted.len());
    for port in wanted {
        if port.container_port == 0 {
            return invalid("port 0 of a container can't be published");
        }
        let host_ip = port.host_ip.or(binding);
        let is_relayed = host_ip == Some(Ipv6Addr::LOCALHOST.into());
        if is_relayed && port.proto == Proto::Sctp {
            return invalid(format!(
                "port {}/sctp can't be published on ::1: only TCP and UDP can",
                port.container_port
            ));
        }
        if host_ip.is_some_and(|ip| ip.is_ipv6()) && !v6 && !is_relayed {
            // Clients that repeat what an inspection showed name both families.
            if host_ip.is_some_and(|ip| ip.is_unspecified()) && has_twin(wanted, port) {
                continue;
            }
            let reason = "the container has no IPv6 address: use a network made with --ipv6";
            return invalid(format!("port {}/{} can't be published: {reason}", port.container_port, port.proto));
        }
        let host_port = one(state, &taken, &PortMap { host_ip, ..*port })?;
        let port = PortMap { host_ip, host_port, host_port_end: 0, ..*port };
        taken.add(&port, id);
        decided.push(port);
    }
    Ok(decided)
}

fn has_twin(wanted: &[PortMap], port: &PortMap) -> bool {
    wanted.iter().any(|other| {
        other.host_ip.is_none_or(|ip| ip.is_ipv4())
            && (other.proto, other.container_port) == (port.proto, port.container_port)
    })
}

fn one(state: &mut State, taken: &Taken, port: &PortMap) -> Result<u16, Error> {
    let ip = port.host_ip;
    let free = |number: u16| taken.holder(port.proto, ip, number).is_none() && listen(port.proto, ip, number).is_ok();
    if port.host_port == 0 {
        let start = if CHOSEN.contains(&state.next_port) { state.next_port } else { *CHOSEN.start() };
        let mut turn = (start..=*CHOSEN.end()).chain(*CHOSEN.start()..start);
        let found = turn.find(|number| free(*number)).ok_or_else(|| Error::Exhausted("no free port left".into()))?;
        state.next_port = found.checked_add(1).unwrap_or(0);
        return Ok(found);
    }
    if port.host_port_end > port.host_port {
        let found = (port.host_port..=port.host_port_end).find(|number| free(*number));
        return found.ok_or_else(|| Error::PortTaken {
            address: format!("{}-{}", shown(port), port.host_port_end),
            by: "others, all of the range".into(),
        });
    }
    if let Some(other) = taken.holder(port.proto, ip, port.host_port) {
        return Err(Error::PortTaken { address: shown(port), by: format!("container {other}") });
    }
    match listen(port.proto, ip, port.host_port) {
        Ok(()) => Ok(port.host_port),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            Err(Error::PortTaken { address: shown(port), by: "another program on the host".into() })
        }
        Err(e) => invalid(format!("port {} can't be published: {e}", shown(port))),
    }
}

fn shown(port: &PortMap) -> String {
    let ip = port.host_ip.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    let ip = if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    format!("{ip}:{}/{}", port.host_port, port.proto)
}

/// Whether a program on the host could listen on a port, so that none does. Nothing is listened for: a client must not
/// meet an answer that isn't the container's.
fn listen(proto: Proto, ip: Option<IpAddr>, port: u16) -> io::Result<()> {
    let both = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let addresses = ip.map_or(both.to_vec(), |ip| vec![ip]);
    for ip in addresses {
        let (family, any) = match ip {
            IpAddr::V4(_) => (AddressFamily::INET, ip.is_unspecified()),
            IpAddr::V6(_) => (AddressFamily::INET6, ip.is_unspecified()),
        };
        let (kind, number) = match proto {
            Proto::Tcp => (SocketType::STREAM, ipproto::TCP),
            Proto::Udp => (SocketType::DGRAM, ipproto::UDP),
            Proto::Sctp => (SocketType::STREAM, ipproto::SCTP),
        };
        let socket = match socket_with(family, kind, SocketFlags::CLOEXEC, Some(number)) {
            Ok(socket) => socket,
            // A kernel without SCTP, or without IPv6: nobody listens there.
            Err(rustix::io::Errno::PROTONOSUPPORT | rustix::io::Errno::AFNOSUPPORT) => continue,
            Err(e) => return Err(e.into()),
        };
        if family == AddressFamily::INET6 {
            sockopt::set_ipv6_v6only(&socket, true)?;
        }
        // Connections that have ended keep no port; for UDP the option would let two programs listen.
        if proto != Proto::Udp {
            sockopt::set_socket_reuseaddr(&socket, true)?;
        }
        match bind(&socket, &SocketAddrAny::from(std::net::SocketAddr::from((ip, port)))) {
            // IPv6 is turned off on the host.
            Err(rustix::io::Errno::ADDRNOTAVAIL) if any && ip.is_ipv6() => {}
            other => other?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Sandbox;

    fn port(host_ip: Option<&str>, host_port: u16, host_port_end: u16) -> PortMap {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        PortMap { proto: Proto::Tcp, host_ip, host_port, host_port_end, container_port: 80 }
    }

    #[test]
    fn a_port_has_one_owner_on_each_address() {
        for (one, other, expected) in [
            (None, Some("127.0.0.1"), true),
            (Some("127.0.0.1"), Some("127.0.0.2"), false),
            (Some("0.0.0.0"), Some("127.0.0.2"), true),
            (Some("0.0.0.0"), Some("::"), false),
            (Some("::"), Some("fd00::1"), true),
            (None, Some("::"), true),
        ] {
            let ip = |text: Option<&str>| text.map(|ip| ip.parse().unwrap());
            assert_eq!(clash(ip(one), ip(other)), expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn a_range_gives_its_first_free_port_and_listeners_are_passed_over() {
        let mut state = State::default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = listener.local_addr().unwrap().port();
        let error = decide(&mut state, "me", &[port(Some("127.0.0.1"), busy, 0)], None, false).unwrap_err();
        assert!(matches!(error, Error::PortTaken { .. }), "{error}");
        let wanted = [port(Some("127.0.0.1"), busy, busy.saturating_add(20))];
        let chosen = decide(&mut state, "me", &wanted, None, false).unwrap()[0].host_port;
        assert!(chosen > busy);
        let ports = vec![port(None, chosen, 0)];
        state.sandboxes.insert("other".into(), Sandbox { ports, ..Sandbox::default() });
        let next = decide(&mut state, "me", &wanted, None, false).unwrap()[0].host_port;
        assert!(next > chosen);
    }

    #[test]
    fn ipv6_is_refused_where_there_is_none_unless_ipv4_is_asked_for_too() {
        let mut state = State::default();
        assert!(decide(&mut state, "me", &[port(Some("::"), 0, 0)], None, false).is_err());
        let both = [port(Some("0.0.0.0"), 0, 0), port(Some("::"), 0, 0)];
        assert_eq!(decide(&mut state, "me", &both, None, false).unwrap().len(), 1);
    }
}
