//! DHCP packets from and to bytes (RFC 2131, section 2; options: RFC 2132, RFC 3442). What comes from the network is
//! checked here once; the state machine sees only what makes sense.

use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, Flags, Message, MessageType, Opcode, OptionCode};
use dhcproto::{Decodable as _, Decoder, Encodable as _, Encoder};

/// Longest packet that is read.
pub const MAX_PACKET_BYTES: usize = 1500;
/// Most name servers and most routes that are taken from a lease.
const MAX_SERVERS: usize = 8;
const MAX_ROUTES: usize = 32;
/// Shortest lease in seconds that is believed; a shorter one counts as this long, so that renewal can't run wild.
const MIN_LEASE_S: u32 = 20;

/// What a server leases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address.
    pub address: Ipv4Addr,
    /// Its prefix length.
    pub prefix: u8,
    /// The server that leases it.
    pub server: Ipv4Addr,
    /// Routes: destination, prefix length, router; a router of `0.0.0.0`: on the link itself.
    pub routes: Vec<(Ipv4Addr, u8, Ipv4Addr)>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// MTU of the link, 576 at least.
    pub mtu: Option<u16>,
    /// Seconds of the lease, `u32::MAX`: for ever.
    pub lease_s: u32,
    /// Seconds until it is renewed (T1).
    pub renew_s: u32,
    /// Seconds until any server may renew it (T2).
    pub rebind_s: u32,
}

/// A server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It could lease this.
    Offer(Lease),
    /// It leases this.
    Ack(Lease),
    /// It leases nothing, or no more.
    Nak,
}

/// What a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// What is asked for.
    pub kind: QueryKind,
}

/// What is asked for; the fields each kind fills in are those of RFC 2131, table 5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryKind {
    /// Whatever a server has to offer.
    Discover,
    /// The address that this server offered.
    Select {
        /// The address.
        address: Ipv4Addr,
        /// The server.
        server: Ipv4Addr,
    },
    /// The address that the client has, for longer.
    Extend {
        /// The address.
        address: Ipv4Addr,
    },
}

/// Writes a query of the link with this hardware address.
pub fn encode(query: &Query, mac: [u8; 6], hostname: &str) -> Result<Vec<u8>, dhcproto::error::EncodeError> {
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let mut message = Message::new_with_id(query.xid, unspecified, unspecified, unspecified, unspecified, &mac);
    message.set_opcode(Opcode::BootRequest).set_secs(query.secs);
    let kind = if query.kind == QueryKind::Discover { MessageType::Discover } else { MessageType::Request };
    let mut options = vec![
        DhcpOption::MessageType(kind),
        // RFC 2132, section 9.14: type 1 (Ethernet) and the hardware address.
        DhcpOption::ClientIdentifier([&[1], &mac[..]].concat()),
        DhcpOption::MaxMessageSize(MAX_PACKET_BYTES as u16),
        DhcpOption::Hostname(hostname.into()),
        DhcpOption::ParameterRequestList(vec![
            OptionCode::SubnetMask,
            OptionCode::ClasslessStaticRoute,
            OptionCode::Router,
            OptionCode::DomainNameServer,
            OptionCode::InterfaceMtu,
            OptionCode::Renewal,
            OptionCode::Rebinding,
        ]),
    ];
    match query.kind {
        QueryKind::Discover => {}
        QueryKind::Select { address, server } => {
            options.push(DhcpOption::RequestedIpAddress(address));
            options.push(DhcpOption::ServerIdentifier(server));
        }
        QueryKind::Extend { address } => {
            message.set_ciaddr(address);
        }
    }
    if !matches!(query.kind, QueryKind::Extend { .. }) {
        // Without an address of its own the client can't take what is sent to the one it will have.
        message.set_flags(Flags::default().set_broadcast());
    }
    for option in options {
        message.opts_mut().insert(option);
    }
    let mut bytes = Vec::with_capacity(400);
    message.encode(&mut Encoder::new(&mut bytes))?;
    // RFC 1542, section 2.1: relays may drop what is shorter.
    bytes.resize(bytes.len().max(300), 0);
    Ok(bytes)
}

/// Reads an answer to this transaction of the link with this hardware address; `None`: it is something else, or makes
/// no sense.
pub fn decode(bytes: &[u8], xid: u32, mac: [u8; 6]) -> Option<Answer> {
    // op, htype, hlen: the decoder trusts hlen.
    if bytes.len() < 240 || bytes.len() > MAX_PACKET_BYTES || bytes[..3] != [2, 1, 6] {
        return None;
    }
    let message = Message::decode(&mut Decoder::new(bytes)).ok()?;
    if message.opcode() != Opcode::BootReply || message.xid() != xid || message.chaddr() != mac {
        return None;
    }
    match message.opts().msg_type()? {
        MessageType::Nak => Some(Answer::Nak),
        MessageType::Offer => Some(Answer::Offer(lease(&message)?)),
        MessageType::Ack => Some(Answer::Ack(lease(&message)?)),
        _ => None,
    }
}

fn lease(message: &Message) -> Option<Lease> {
    let options = message.opts();
    let address = message.yiaddr();
    if !is_host(address) {
        return None;
    }
    let DhcpOption::ServerIdentifier(server) = options.get(OptionCode::ServerIdentifier)? else { return None };
    let prefix = match options.get(OptionCode::SubnetMask) {
        Some(DhcpOption::SubnetMask(mask)) => prefix_of(*mask)?,
        _ => 24,
    };
    let lease_s = match options.get(OptionCode::AddressLeaseTime)? {
        DhcpOption::AddressLeaseTime(seconds) => (*seconds).max(MIN_LEASE_S),
        _ => return None,
    };
    let (renew_s, rebind_s) = renewal(message, lease_s);
    let mut dns = Vec::new();
    if let Some(DhcpOption::DomainNameServer(servers)) = options.get(OptionCode::DomainNameServer) {
        dns.extend(servers.iter().copied().filter(|server| is_host(*server)).take(MAX_SERVERS));
    }
    let mtu = match options.get(OptionCode::InterfaceMtu) {
        Some(DhcpOption::InterfaceMtu(mtu)) if *mtu >= 576 => Some(*mtu),
        _ => None,
    };
    Some(Lease { address, prefix, server: *server, routes: routes(message), dns, mtu, lease_s, renew_s, rebind_s })
}

/// T1 and T2, in order and below the lease's end; else half of it and seven eighths (RFC 2131, section 4.4.5).
fn renewal(message: &Message, lease_s: u32) -> (u32, u32) {
    let t1 = match message.opts().get(OptionCode::Renewal) {
        Some(DhcpOption::Renewal(seconds)) => *seconds,
        _ => lease_s / 2,
    };
    let t2 = match message.opts().get(OptionCode::Rebinding) {
        Some(DhcpOption::Rebinding(seconds)) => *seconds,
        _ => lease_s - lease_s / 8,
    };
    if MIN_LEASE_S / 2 <= t1 && t1 < t2 && t2 < lease_s { (t1, t2) } else { (lease_s / 2, lease_s - lease_s / 8) }
}

/// Classless routes stand for the router option where both are there (RFC 3442).
fn routes(message: &Message) -> Vec<(Ipv4Addr, u8, Ipv4Addr)> {
    if let Some(DhcpOption::ClasslessStaticRoute(routes)) = message.opts().get(OptionCode::ClasslessStaticRoute) {
        let routes = routes.iter().take(MAX_ROUTES);
        return routes.map(|(net, router)| (net.network(), net.prefix_len(), *router)).collect();
    }
    match message.opts().get(OptionCode::Router) {
        Some(DhcpOption::Router(routers)) => {
            let first = routers.iter().copied().find(|router| is_host(*router));
            first.map(|router| (Ipv4Addr::UNSPECIFIED, 0, router)).into_iter().collect()
        }
        _ => Vec::new(),
    }
}

fn is_host(address: Ipv4Addr) -> bool {
    !(address.is_unspecified() || address.is_multicast() || address.is_broadcast() || address.is_loopback())
}

fn prefix_of(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let prefix = bits.leading_ones();
    (prefix > 0 && prefix + bits.trailing_zeros() >= 32).then_some(prefix as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

    fn ack(options: Vec<DhcpOption>) -> Vec<u8> {
        let zero = Ipv4Addr::UNSPECIFIED;
        let mut message = Message::new_with_id(7, zero, Ipv4Addr::new(10, 0, 2, 15), zero, zero, &MAC);
        message.set_opcode(Opcode::BootReply);
        let basics = [
            DhcpOption::MessageType(MessageType::Ack),
            DhcpOption::ServerIdentifier(Ipv4Addr::new(10, 0, 2, 2)),
            DhcpOption::AddressLeaseTime(86_400),
        ];
        for option in basics.into_iter().chain(options) {
            message.opts_mut().insert(option);
        }
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        bytes
    }

    fn lease_of(options: Vec<DhcpOption>) -> Option<Lease> {
        match decode(&ack(options), 7, MAC) {
            Some(Answer::Ack(lease)) => Some(lease),
            _ => None,
        }
    }

    #[test]
    fn a_lease_is_read_with_its_router_and_servers() {
        let lease = lease_of(vec![
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 255, 0)),
            DhcpOption::Router(vec![Ipv4Addr::new(10, 0, 2, 2)]),
            DhcpOption::DomainNameServer(vec![Ipv4Addr::new(10, 0, 2, 3), Ipv4Addr::BROADCAST]),
        ])
        .unwrap();
        assert_eq!((lease.prefix, lease.renew_s, lease.rebind_s), (24, 43_200, 75_600));
        assert_eq!(lease.routes, [(Ipv4Addr::UNSPECIFIED, 0, Ipv4Addr::new(10, 0, 2, 2))]);
        assert_eq!(lease.dns, [Ipv4Addr::new(10, 0, 2, 3)]);
    }

    #[test]
    fn packets_of_others_and_nonsense_are_passed_over() {
        let good = ack(Vec::new());
        assert!(decode(&good, 7, MAC).is_some());
        assert!(decode(&good, 8, MAC).is_none());
        assert!(decode(&good, 7, [0; 6]).is_none());
        assert!(lease_of(vec![DhcpOption::SubnetMask(Ipv4Addr::new(255, 0, 255, 0))]).is_none());
        let reversed = lease_of(vec![DhcpOption::Renewal(9_000_000), DhcpOption::Rebinding(1)]).unwrap();
        assert_eq!(reversed.renew_s, 43_200);
    }

    #[test]
    fn hostile_bytes_never_panic() {
        let good = ack(vec![DhcpOption::Router(vec![Ipv4Addr::LOCALHOST])]);
        for length in 0..good.len() {
            let _ = decode(&good[..length], 7, MAC);
        }
        for at in 0..good.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = decode(&bytes, 7, MAC);
            }
        }
    }
}
