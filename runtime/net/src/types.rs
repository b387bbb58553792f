//! Endpoints and published ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
        })
    }
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// Protocol.
    pub proto: Proto,
    /// Address of the host that it is published on; `None`: all IPv4 addresses.
    pub host_ip: Option<IpAddr>,
    /// Port of the host; 0 in a request: choose one.
    pub host_port: u16,
    /// Port of the container.
    pub container_port: u16,
}

/// A container's place in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address of the container.
    pub ip: Ipv4Addr,
    /// Prefix length of the network.
    pub prefix: u8,
    /// Its default route: the bridge's address.
    pub gateway: Ipv4Addr,
    /// Its Ethernet address, made from `ip`.
    pub mac: [u8; 6],
    /// Published ports, the chosen ones filled in.
    pub ports: Vec<PortMap>,
}
