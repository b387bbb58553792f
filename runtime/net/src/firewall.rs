//! Translation and forwarding rules: our own nf_tables table, replaced whole and atomically at each change
//! (include/uapi/linux/netfilter/nf_tables.h). A rebuilt table can't drift from what is known, and connections that
//! are under way keep their translation, which conntrack remembers.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::ipam::Subnet;
use crate::netlink::{ACK, APPEND, CREATE, Message, Socket};
use crate::types::{Endpoint, Proto};

/// Name of the table, family `ip`.
const TABLE: &str = "keel";
const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = SUBSYSTEM << 8;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Hooks (`NF_INET_…`).
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

const META_IIFNAME: u32 = 6;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const EQ: u32 = 0;
const NE: u32 = 1;
/// `IPS_DST_NAT` of `ct status`.
const CT_DNAT: u32 = 1 << 5;
/// `established` and `related` of `ct state`.
const CT_KNOWN: u32 = 2 | 4;
const ACCEPT: u32 = 1;
const DROP: u32 = 0;

/// Replaces the table by one for these endpoints.
pub(crate) fn apply<'a>(
    bridge: &str,
    subnet: Subnet,
    endpoints: impl Iterator<Item = &'a Endpoint> + Clone,
) -> io::Result<()> {
    let table = |kind, flags| message(kind, flags).text(1, TABLE);
    // Making it first lets the deletion succeed where there was none.
    let mut batch =
        vec![begin_or_end(BATCH_BEGIN), table(NEWTABLE, CREATE), table(DELTABLE, 0), table(NEWTABLE, CREATE)];
    batch.extend([
        chain("guard", "filter", PREROUTING, -300),
        chain("prerouting", "nat", PREROUTING, -100),
        chain("output", "nat", OUTPUT, -100),
        chain("postrouting", "nat", POSTROUTING, 100),
        chain("forward", "filter", FORWARD, 0),
    ]);
    let local = Subnet { base: Ipv4Addr::new(127, 0, 0, 0), prefix: 8 };
    // Published ports work on the host's loopback by `route_localnet`; without this, containers and the network
    // behind them could reach the host's own loopback services the same way (CVE-2020-8558).
    batch.push(rule("guard", |r| r.interface(META_IIFNAME, EQ, bridge).daddr_in(local).verdict(DROP)));
    for endpoint in endpoints {
        for port in &endpoint.ports {
            for hook in ["prerouting", "output"] {
                batch.push(rule(hook, |mut r| {
                    r = match port.host_ip {
                        Some(IpAddr::V4(ip)) if !ip.is_unspecified() => r.daddr(ip),
                        _ => r.daddr_is_local(),
                    };
                    r.dport(port.proto, port.host_port).dnat(endpoint.ip, port.container_port)
                }));
            }
        }
    }
    batch.extend([
        rule("postrouting", |r| r.saddr_in(subnet).interface(META_OIFNAME, NE, bridge).masquerade()),
        // Hairpin: a container that reaches another, or itself, by a published port must get its answers through us.
        rule("postrouting", |r| r.saddr_in(subnet).interface(META_OIFNAME, EQ, bridge).ct(2, CT_DNAT).masquerade()),
        rule("postrouting", |r| r.saddr_in(local).interface(META_OIFNAME, EQ, bridge).masquerade()),
        rule("forward", |r| r.interface(META_IIFNAME, EQ, bridge).verdict(ACCEPT)),
        rule("forward", |r| r.interface(META_OIFNAME, EQ, bridge).ct(0, CT_KNOWN).verdict(ACCEPT)),
        rule("forward", |r| r.interface(META_OIFNAME, EQ, bridge).ct(2, CT_DNAT).verdict(ACCEPT)),
        // Nobody outside reaches a container but by a published port.
        rule("forward", |r| r.interface(META_OIFNAME, EQ, bridge).verdict(DROP)),
        begin_or_end(BATCH_END),
    ]);
    Socket::netfilter()?.batch(batch)
}

/// `struct nfgenmsg` of family IPv4.
fn message(kind: u16, flags: u16) -> Message {
    Message::new(kind, flags | ACK).raw(&[2, 0, 0, 0])
}

fn begin_or_end(kind: u16) -> Message {
    Message::new(kind, 0).raw(&[0, 0, 0, SUBSYSTEM as u8])
}

fn chain(name: &str, kind: &str, hook: u32, priority: i32) -> Message {
    message(NEWCHAIN, CREATE)
        .text(1, TABLE)
        .text(3, name)
        .nest(4, |m| m.be32(1, hook).be32(2, priority as u32))
        .be32(5, ACCEPT)
        .text(7, kind)
}

fn rule(chain: &str, expressions: impl FnOnce(Rule) -> Rule) -> Message {
    message(NEWRULE, CREATE | APPEND).text(1, TABLE).text(2, chain).nest(4, |m| expressions(Rule(m)).0)
}

/// The expressions of a rule: each loads into register 1 and compares, so all must hold.
struct Rule(Message);

impl Rule {
    fn expression(self, name: &str, data: impl FnOnce(Message) -> Message) -> Self {
        Self(self.0.nest(1, |m| m.text(1, name).nest(2, data)))
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |m| m.be32(1, 1).be32(2, operator).nest(3, |m| m.attr(1, value)))
    }

    fn meta(self, key: u32) -> Self {
        self.expression("meta", |m| m.be32(1, 1).be32(2, key))
    }

    /// Loads from the packet: base 1 is the network header, 2 the transport header.
    fn payload(self, base: u32, offset: u32, len: u32) -> Self {
        self.expression("payload", |m| m.be32(1, 1).be32(2, base).be32(3, offset).be32(4, len))
    }

    fn mask(self, mask: &[u8]) -> Self {
        let zero = vec![0; mask.len()];
        self.expression("bitwise", |m| {
            let m = m.be32(1, 1).be32(2, 1).be32(3, mask.len() as u32);
            m.nest(4, |m| m.attr(1, mask)).nest(5, |m| m.attr(1, &zero))
        })
    }

    fn interface(self, key: u32, operator: u32, name: &str) -> Self {
        let mut padded = [0; 16];
        for (to, from) in padded.iter_mut().take(15).zip(name.bytes()) {
            *to = from;
        }
        self.meta(key).compare(operator, &padded)
    }

    fn saddr_in(self, subnet: Subnet) -> Self {
        self.payload(1, 12, 4).mask(&subnet.mask().to_be_bytes()).compare(EQ, &subnet.base.octets())
    }

    fn daddr_in(self, subnet: Subnet) -> Self {
        self.payload(1, 16, 4).mask(&subnet.mask().to_be_bytes()).compare(EQ, &subnet.base.octets())
    }

    fn daddr(self, ip: Ipv4Addr) -> Self {
        self.payload(1, 16, 4).compare(EQ, &ip.octets())
    }

    /// `fib daddr type local`: result 3 is the address type, flag 2 the destination, type 2 local.
    fn daddr_is_local(self) -> Self {
        self.expression("fib", |m| m.be32(1, 1).be32(2, 3).be32(3, 2)).compare(EQ, &2u32.to_ne_bytes())
    }

    fn dport(self, proto: Proto, port: u16) -> Self {
        let number = match proto {
            Proto::Tcp => 6,
            Proto::Udp => 17,
        };
        self.meta(META_L4PROTO).compare(EQ, &[number]).payload(2, 2, 2).compare(EQ, &port.to_be_bytes())
    }

    /// Any of these bits of conntrack's state (key 0) or status (key 2).
    fn ct(self, key: u32, bits: u32) -> Self {
        let loaded = self.expression("ct", |m| m.be32(1, 1).be32(2, key));
        loaded.mask(&bits.to_ne_bytes()).compare(NE, &[0; 4])
    }

    fn dnat(self, ip: Ipv4Addr, port: u16) -> Self {
        let load = |r: Self, register, value: &[u8]| {
            r.expression("immediate", |m| m.be32(1, register).nest(2, |m| m.attr(1, value)))
        };
        let loaded = load(load(self, 1, &ip.octets()), 2, &port.to_be_bytes());
        // Type 1 is destination, family 2 IPv4.
        loaded.expression("nat", |m| m.be32(1, 1).be32(2, 2).be32(3, 1).be32(5, 2))
    }

    fn masquerade(self) -> Self {
        self.expression("masq", |m| m)
    }

    fn verdict(self, code: u32) -> Self {
        self.expression("immediate", |m| m.be32(1, 0).nest(2, |m| m.nest(2, |m| m.be32(1, code))))
    }
}
