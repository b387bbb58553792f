//! Addresses and routes (rtnetlink(7)), of the namespace of the thread that calls.

use std::io;
use std::net::IpAddr;

use crate::cidr::{Cidr, octets};
use crate::netlink::{ACK, CREATE, DUMP, EXCL, Message, REPLACE, Socket, attributes};

const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const GETROUTE: u16 = 26;
/// `IFA_F_NODAD`: an IPv6 address can be used at once. Nobody else can have it, since we give them all.
const NO_DETECTION: u8 = 0x02;

/// `AF_INET` or `AF_INET6`.
fn family(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 2 } else { 10 }
}

/// Adds an address; one that is there already is fine.
pub(crate) fn add_address(socket: &Socket, index: u32, ip: IpAddr, prefix: u8) -> io::Result<()> {
    let mut ifaddr = [family(ip), prefix, if ip.is_ipv6() { NO_DETECTION } else { 0 }, 0, 0, 0, 0, 0];
    ifaddr[4..8].copy_from_slice(&index.to_ne_bytes());
    let bytes = octets(ip);
    let mut message = Message::new(NEWADDR, ACK | CREATE | EXCL).raw(&ifaddr).attr(2, &bytes).attr(1, &bytes);
    if let IpAddr::V4(ip) = ip {
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        message = message.attr(4, &(ip.to_bits() | hosts).to_be_bytes());
    }
    match socket.request(message) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Where a default route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// Over which interface.
    pub index: u32,
    /// Over which neighbour; `None`: everybody is one.
    pub gateway: Option<IpAddr>,
}

/// Sets the default route of a family, or takes it away. All are ours: nothing else sets routes before the
/// container's program runs, and what that sets is its own affair.
pub(crate) fn set_default(socket: &Socket, v4: bool, way: Option<Way>) -> io::Result<()> {
    let family = if v4 { 2 } else { 10 };
    // Table main (254), protocol boot (3), scope universe (0), unicast (1).
    let route = [family, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let Some(way) = way else {
        // One that isn't there, in a family that may not be there either.
        let _ = socket.request(Message::new(DELROUTE, ACK).raw(&[family, 0, 0, 0, 254, 0, 0, 0, 0, 0, 0, 0]));
        return Ok(());
    };
    if !v4 {
        // With IPv6, replacing only changes the first of several routes, so that an old one could stay.
        set_default(socket, v4, None)?;
    }
    let mut message = Message::new(NEWROUTE, ACK | CREATE | REPLACE).raw(&route).u32(4, way.index);
    if let Some(gateway) = way.gateway {
        message = message.attr(5, &octets(gateway));
    }
    socket.request(message)
}

/// Destinations of all routes but default ones and those over `except`.
pub(crate) fn list(socket: &Socket, except: &[u32]) -> io::Result<Vec<Cidr>> {
    let mut out = Vec::new();
    for family in [2, 10] {
        let mut request = [0; 12];
        request[0] = family;
        for answer in socket.ask(Message::new(GETROUTE, DUMP).raw(&request))? {
            let Some(&prefix) = answer.payload.get(1) else { continue };
            let (mut destination, mut over) = (None, None);
            for (kind, value) in attributes(&answer.payload, 12) {
                match (kind, value.len()) {
                    (1, 4) => destination = <[u8; 4]>::try_from(value).ok().map(IpAddr::from),
                    (1, 16) => destination = <[u8; 16]>::try_from(value).ok().map(IpAddr::from),
                    (4, 4) => over = <[u8; 4]>::try_from(value).ok().map(u32::from_ne_bytes),
                    _ => {}
                }
            }
            let other = over.is_none_or(|over| !except.contains(&over));
            let range = destination.filter(|_| prefix != 0 && other).and_then(|ip| Cidr::around(ip, prefix));
            // What every interface has, or leads to many, says nothing of who is where.
            out.extend(
                range
                    .filter(|r| !matches!(r.base(), IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast())),
            );
        }
    }
    Ok(out)
}
