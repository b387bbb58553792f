//! Endpoints and published ports.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Transport protocol of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Proto {
    /// Its number (IANA, protocol numbers).
    pub(crate) fn number(self) -> u8 {
        match self {
            Proto::Tcp => 6,
            Proto::Udp => 17,
            Proto::Sctp => 132,
        }
    }
}

impl fmt::Display for Proto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Proto::Tcp => "tcp",
            Proto::Udp => "udp",
            Proto::Sctp => "sctp",
        })
    }
}

/// A published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMap {
    /// Protocol.
    pub proto: Proto,
    /// Address of the host that it is published on; `0.0.0.0`: all IPv4 ones, `::`: all IPv6 ones, `None`: all.
    pub host_ip: Option<IpAddr>,
    /// Port of the host; 0 in a request: choose one.
    pub host_port: u16,
    /// In a request, the last port of a range to choose from; 0: there is no range.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub host_port_end: u16,
    /// Port of the container.
    pub container_port: u16,
}

fn is_zero(number: &u16) -> bool {
    *number == 0
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Of an interface that shares its parent's: it has none of its own.
    pub(crate) const SHARED: Mac = Mac([0; 6]);
}

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("invalid MAC address {text:.40}");
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(refuse)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| refuse())?;
        }
        // Of several stations, or of none: no interface can have it.
        if parts.next().is_some() || bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(refuse());
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.map(|byte| format!("{byte:02x}")).join(":"))
    }
}

/// A container's place in one network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its ID, 64 hexadecimal digits.
    pub id: String,
    /// ID of the network.
    pub network: String,
    /// Its name.
    #[serde(default)]
    pub network_name: String,
    /// Name of the interface inside.
    pub interface: String,
    /// Address of the container.
    pub ip: Ipv4Addr,
    /// Prefix length of the network.
    pub prefix: u8,
    /// The way out; `None`: there is none.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// The same in IPv6.
    #[serde(default)]
    pub ip6: Option<Ipv6Addr>,
    /// Likewise.
    #[serde(default)]
    pub prefix6: u8,
    /// Likewise.
    #[serde(default)]
    pub gateway6: Option<Ipv6Addr>,
    /// Further addresses that lead no further than to neighbours (RFC 3927; RFC 4291, section 2.5.6).
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Names under which the network's other containers find it.
    #[serde(default)]
    pub names: Vec<String>,
    /// Names of its own for other containers: the name, the container's ID.
    #[serde(default)]
    pub links: Vec<(String, String)>,
    /// Which of several endpoints leads out: the one with the highest.
    #[serde(default)]
    pub priority: i64,
}

impl Endpoint {
    /// Its Ethernet address as clients are told it; empty where it shares that of the host's link.
    pub fn shown_mac(&self) -> String {
        if self.mac == Mac::SHARED { String::new() } else { self.mac.to_string() }
    }
}

/// What a container has of networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// Its places, in the order in which they were made.
    pub endpoints: Vec<Endpoint>,
    /// Its published ports, the chosen ones filled in.
    pub ports: Vec<PortMap>,
    /// Name servers that its questions are passed to; none: the host's.
    pub servers: Vec<IpAddr>,
    /// The endpoint that leads out, by its ID.
    pub outward: Option<String>,
    /// The endpoint that ports are published to, by its ID.
    pub published: Option<String>,
}

impl Sandbox {
    /// The endpoint that leads out.
    pub fn outward(&self) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| Some(&endpoint.id) == self.outward.as_ref())
    }

    /// The endpoint that ports are published to.
    pub fn published(&self) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| Some(&endpoint.id) == self.published.as_ref())
    }

    /// Its place in a network.
    pub fn endpoint(&self, network: &str) -> Option<&Endpoint> {
        self.endpoints.iter().find(|endpoint| endpoint.network == network)
    }
}

/// An endpoint that is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// ID of the network.
    pub network: String,
    /// A fixed address.
    pub ip: Option<Ipv4Addr>,
    /// A fixed IPv6 address.
    pub ip6: Option<Ipv6Addr>,
    /// See [`Endpoint::link_local`].
    pub link_local: Vec<IpAddr>,
    /// A fixed Ethernet address.
    pub mac: Option<Mac>,
    /// See [`Endpoint::names`].
    pub names: Vec<String>,
    /// See [`Endpoint::links`].
    pub links: Vec<(String, String)>,
    /// See [`Endpoint::priority`].
    pub priority: i64,
}

/// What a container asks for at its start.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Its places.
    pub wanted: Vec<Wanted>,
    /// Ports to publish.
    pub ports: Vec<PortMap>,
    /// See [`Sandbox::servers`].
    pub servers: Vec<IpAddr>,
    /// Kernel parameters to be set in its namespace, with dotted names.
    pub sysctls: Vec<(String, String)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ethernet_addresses_are_read_and_impossible_ones_refused() {
        assert_eq!("02:42:ac:11:00:02".parse::<Mac>().unwrap().to_string(), "02:42:ac:11:00:02");
        for text in ["", "02:42:ac:11:00", "02:42:ac:11:00:02:03", "01:00:5e:00:00:01", "zz:42:ac:11:00:02"] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
