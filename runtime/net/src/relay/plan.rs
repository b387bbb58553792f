//! Which ports are relayed.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::types::{PortMap, Proto, Sandbox};

/// A port on `::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Port {
    /// TCP or UDP.
    pub proto: Proto,
    /// Its number on the host.
    pub number: u16,
}

/// Where a port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// `::1` itself was named, not all addresses.
    pub is_asked: bool,
    /// The container's addresses, to be tried in this order.
    pub targets: Vec<SocketAddr>,
}

/// The ports of a container that are relayed: those published on `::1` or on all addresses.
pub(super) fn ports(sandbox: &Sandbox) -> BTreeMap<Port, Way> {
    let Some(endpoint) = sandbox.published() else { return BTreeMap::new() };
    let addresses = [Some(IpAddr::from(endpoint.ip)), endpoint.ip6.map(IpAddr::from)];
    let way = |port: &PortMap| Way {
        is_asked: port.host_ip == Some(Ipv6Addr::LOCALHOST.into()),
        targets: addresses.into_iter().flatten().map(|ip| (ip, port.container_port).into()).collect(),
    };
    let all = sandbox.ports.iter().filter(|port| port.proto != Proto::Sctp && is_here(port.host_ip));
    all.map(|port| (Port { proto: port.proto, number: port.host_port }, way(port))).collect()
}

fn is_here(ip: Option<IpAddr>) -> bool {
    match ip {
        None => true,
        Some(IpAddr::V4(_)) => false,
        Some(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unspecified(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_on_the_loopback_and_on_all_addresses_are_relayed() {
        let endpoint = r#"{"id":"e","network":"n","interface":"eth0","ip":"10.0.0.2","prefix":24,"mac":[2,0,0,0,0,1]}"#;
        let endpoints = vec![serde_json::from_str(endpoint).unwrap()];
        let port = |proto, ip: Option<&str>, host_port| {
            let host_ip = ip.map(|ip| ip.parse().unwrap());
            PortMap { proto, host_ip, host_port, host_port_end: 0, container_port: 80 }
        };
        let ports = vec![
            port(Proto::Tcp, None, 1),
            port(Proto::Udp, Some("::"), 2),
            port(Proto::Tcp, Some("::1"), 3),
            port(Proto::Tcp, Some("127.0.0.1"), 4),
            port(Proto::Tcp, Some("0.0.0.0"), 5),
            port(Proto::Tcp, Some("fd00::1"), 6),
            port(Proto::Sctp, None, 7),
        ];
        let mut sandbox = Sandbox { endpoints, ports, published: Some("e".into()), ..Sandbox::default() };
        let found = super::ports(&sandbox);
        assert_eq!(found.keys().map(|port| port.number).collect::<Vec<_>>(), [1, 3, 2]);
        assert!(found.iter().all(|(port, way)| way.is_asked == (port.number == 3)));
        assert!(found.values().all(|way| way.targets == ["10.0.0.2:80".parse().unwrap()]));
        sandbox.published = None;
        assert!(super::ports(&sandbox).is_empty());
    }
}
