//! Interfaces, addresses and routes (rtnetlink(7)).

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{ACK, CREATE, DUMP, EXCL, Message, Socket, attributes};
use crate::types::Endpoint;

const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const NEWADDR: u16 = 20;
const NEWROUTE: u16 = 24;
const GETROUTE: u16 = 26;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const UP: u32 = 1;
const INET: u8 = 2;
const IFINFO_BYTES: usize = 16;

/// `struct ifinfomsg`.
fn ifinfo(index: u32, up: bool) -> [u8; IFINFO_BYTES] {
    let mut bytes = [0; IFINFO_BYTES];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    if up {
        bytes[8..12].copy_from_slice(&UP.to_ne_bytes());
        bytes[12..16].copy_from_slice(&UP.to_ne_bytes());
    }
    bytes
}

/// The index of an interface; `None`: there is none of this name.
pub(crate) fn index(socket: &Socket, name: &str) -> io::Result<Option<u32>> {
    match socket.ask(Message::new(GETLINK, 0).raw(&ifinfo(0, false)).text(IFLA_IFNAME, name)) {
        Ok(answers) => match answers.first().and_then(|a| a.payload.get(4..8)) {
            Some(&[a, b, c, d]) => Ok(Some(u32::from_ne_bytes([a, b, c, d]))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        },
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Makes a bridge if there is none of this name, and sets it up. With an address of its own choosing it would take the
/// lowest of its ports', and change it as containers come and go.
pub(crate) fn ensure_bridge(socket: &Socket, name: &str, mac: [u8; 6]) -> io::Result<u32> {
    let found = index(socket, name)?;
    if found.is_none() {
        let message = Message::new(NEWLINK, ACK | CREATE | EXCL).raw(&ifinfo(0, true)).text(IFLA_IFNAME, name);
        let message = message.attr(IFLA_ADDRESS, &mac);
        socket.request(message.nest(IFLA_LINKINFO, |m| m.text(1, "bridge")))?;
    }
    let index = match found {
        Some(index) => index,
        None => index_of(socket, name)?,
    };
    set_up(socket, index)?;
    Ok(index)
}

fn index_of(socket: &Socket, name: &str) -> io::Result<u32> {
    index(socket, name)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn set_up(socket: &Socket, index: u32) -> io::Result<()> {
    socket.request(Message::new(NEWLINK, ACK).raw(&ifinfo(index, true)))
}

/// Makes a pair: `name` on the bridge here, `eth0` in the other namespace, where it is born.
pub(crate) fn make_pair(
    socket: &Socket,
    name: &str,
    bridge: u32,
    netns: BorrowedFd<'_>,
    mac: [u8; 6],
) -> io::Result<()> {
    let message = Message::new(NEWLINK, ACK | CREATE | EXCL)
        .raw(&ifinfo(0, true))
        .text(IFLA_IFNAME, name)
        .u32(IFLA_MASTER, bridge)
        .nest(IFLA_LINKINFO, |m| {
            m.text(1, "veth").nest(2, |m| {
                m.nest(1, |m| {
                    m.raw(&ifinfo(0, false))
                        .text(IFLA_IFNAME, "eth0")
                        .attr(IFLA_ADDRESS, &mac)
                        .u32(IFLA_NET_NS_FD, netns.as_raw_fd() as u32)
                })
            })
        });
    socket.request(message)?;
    // Hairpin: what a container sends to its own published port goes back through the port it came from.
    let message = Message::new(NEWLINK, ACK).raw(&ifinfo(0, false)).text(IFLA_IFNAME, name);
    socket.request(message.nest(IFLA_LINKINFO, |m| m.text(4, "bridge").nest(5, |m| m.attr(4, &[1]))))
}

/// Removes an interface; an absent one is fine.
pub(crate) fn remove(socket: &Socket, name: &str) -> io::Result<()> {
    match socket.request(Message::new(DELLINK, ACK).raw(&ifinfo(0, false)).text(IFLA_IFNAME, name)) {
        Err(e) if is_absent(&e) => Ok(()),
        other => other,
    }
}

/// Adds an address; one that is there already is fine.
pub(crate) fn add_address(socket: &Socket, index: u32, ip: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let mut ifaddr = [INET, prefix, 0, 0, 0, 0, 0, 0];
    ifaddr[4..8].copy_from_slice(&index.to_ne_bytes());
    let broadcast = Ipv4Addr::from(u32::from(ip) | (u32::MAX >> prefix));
    let message = Message::new(NEWADDR, ACK | CREATE | EXCL)
        .raw(&ifaddr)
        .attr(2, &ip.octets())
        .attr(1, &ip.octets())
        .attr(4, &broadcast.octets());
    match socket.request(message) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Sets the container's side up; to be called in its namespace.
pub(crate) fn configure_inside(endpoint: &Endpoint) -> io::Result<()> {
    let socket = Socket::route()?;
    let index = index_of(&socket, "eth0")?;
    set_up(&socket, index_of(&socket, "lo")?)?;
    add_address(&socket, index, endpoint.ip, endpoint.prefix)?;
    set_up(&socket, index)?;
    // Table main (254), protocol boot (3), scope universe (0), unicast (1).
    let route = [INET, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    let message =
        Message::new(NEWROUTE, ACK | CREATE | EXCL).raw(&route).attr(5, &endpoint.gateway.octets()).u32(4, index);
    socket.request(message)
}

/// Destinations of all IPv4 routes but default ones and those over `except`.
pub(crate) fn routes(socket: &Socket, except: Option<u32>) -> io::Result<Vec<(Ipv4Addr, u8)>> {
    let mut request = [0; 12];
    request[0] = INET;
    let mut out = Vec::new();
    for answer in socket.ask(Message::new(GETROUTE, DUMP).raw(&request))? {
        let Some(&prefix) = answer.payload.get(1) else { continue };
        let (mut destination, mut over) = (None, None);
        for (kind, value) in attributes(&answer.payload, 12) {
            if let &[a, b, c, d] = value {
                match kind {
                    1 => destination = Some(Ipv4Addr::new(a, b, c, d)),
                    4 => over = Some(u32::from_ne_bytes([a, b, c, d])),
                    _ => {}
                }
            }
        }
        if let Some(destination) = destination.filter(|_| prefix != 0 && (over.is_none() || over != except)) {
            out.push((destination, prefix));
        }
    }
    Ok(out)
}

fn is_absent(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}
