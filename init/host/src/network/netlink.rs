//! What is asked of the kernel over route netlink (rtnetlink(7)): one request, one acknowledgement.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Index of the loopback link in every network namespace.
pub(super) const LOOPBACK: u32 = 1;
/// `RTNLGRP_LINK` of linux/rtnetlink.h.
const LINK_GROUP: u32 = 1;
/// Most packets read while waiting for one acknowledgement.
const MAX_PACKETS: usize = 64;

/// A netlink socket for requests.
pub(super) struct Netlink {
    socket: Socket,
    sequence: u32,
}

/// Opens a socket that becomes readable whenever a link changes.
pub(super) fn watch_links() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.add_membership(LINK_GROUP)?;
    socket.set_non_blocking(true)?;
    Ok(socket)
}

impl Netlink {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
    }

    pub(super) fn set_up(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }

    pub(super) fn set_mtu(&mut self, index: u32, mtu: u16) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Mtu(mtu.into()));
        self.ask(RouteNetlinkMessage::SetLink(message), 0)
    }

    pub(super) fn add_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        let message = address_message(index, address, prefix);
        self.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    pub(super) fn remove_address(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::DelAddress(address_message(index, address, prefix)), 0)
    }

    /// Adds or replaces a route; an unspecified router means that the destination is on the link.
    pub(super) fn add_route(
        &mut self,
        index: u32,
        (destination, prefix): (IpAddr, u8),
        router: IpAddr,
        metric: u32,
    ) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Dhcp;
        message.header.kind = RouteType::Unicast;
        message.header.scope = if router.is_unspecified() { RouteScope::Link } else { RouteScope::Universe };
        if prefix > 0 {
            message.attributes.push(RouteAttribute::Destination(route_address(destination)));
        }
        if !router.is_unspecified() {
            message.attributes.push(RouteAttribute::Gateway(route_address(router)));
        }
        message.attributes.push(RouteAttribute::Oif(index));
        message.attributes.push(RouteAttribute::Priority(metric));
        self.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)
    }

    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        for _ in 0..MAX_PACKETS {
            let (answer, _) = self.socket.recv_from_full()?;
            let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if answer.header.sequence_number != self.sequence {
                continue;
            }
            return match answer.payload {
                NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
                _ => Ok(()),
            };
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes.push(AddressAttribute::Address(address));
    if let IpAddr::V4(address) = address {
        message.attributes.push(AddressAttribute::Local(address.into()));
        if prefix < 31 {
            let host_bits = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
            let broadcast = Ipv4Addr::from(u32::from(address) | host_bits);
            message.attributes.push(AddressAttribute::Broadcast(broadcast));
        }
    }
    message
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}
