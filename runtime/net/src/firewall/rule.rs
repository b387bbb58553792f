//! Rules of nf_tables as expressions, and what sets hold (include/uapi/linux/netfilter/nf_tables.h). Each expression
//! loads into a register and compares, so all of a rule must hold.

use std::net::Ipv4Addr;

use crate::cidr::{Cidr, octets};
use crate::netlink::{APPEND, CREATE, Message};
use crate::types::Proto;

/// Name of the table, family `inet`.
pub(super) const TABLE: &str = "keel";
pub(super) const SUBSYSTEM: u16 = 10;
const NEWCHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEWRULE: u16 = SUBSYSTEM << 8 | 6;
const NEWSET: u16 = SUBSYSTEM << 8 | 9;
pub(super) const NEWSETELEM: u16 = SUBSYSTEM << 8 | 12;
pub(super) const DELSETELEM: u16 = SUBSYSTEM << 8 | 14;
/// `NFPROTO_INET`: rules for both families.
const INET: u8 = 1;

pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_OIFNAME: u32 = 7;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
pub(super) const EQ: u32 = 0;
pub(super) const NE: u32 = 1;
/// `IPS_DST_NAT` of `ct status`.
const CT_DNAT: u32 = 1 << 5;
/// `established` and `related` of `ct state`.
const CT_KNOWN: u32 = 2 | 4;
pub(super) const ACCEPT: u32 = 1;
pub(super) const DROP: u32 = 0;
/// The first of the registers of 16 bytes, and of those of four into which they fall apart.
const REG: u32 = 1;
const REG32: u32 = 8;
/// Type 1 of `nat` is destination.
const DESTINATION: u32 = 1;
/// nft(8)'s numbers of types, for those who look at the table.
pub(super) const TYPE_IFNAME: u32 = 41;
const TYPE_PORT: u32 = 13;
const TYPE_PROTO: u32 = 12;
/// `NFT_SET_MAP`.
const MAP: u32 = 8;

/// The two families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Family; 2] = [Family::V4, Family::V6];

    pub(super) fn of(v4: bool) -> Self {
        if v4 { Family::V4 } else { Family::V6 }
    }

    pub(super) fn suffix(self) -> char {
        if self == Family::V4 { '4' } else { '6' }
    }

    /// `NFPROTO_…`.
    fn number(self) -> u8 {
        if self == Family::V4 { 2 } else { 10 }
    }

    pub(super) fn bytes(self) -> u32 {
        if self == Family::V4 { 4 } else { 16 }
    }

    fn kind(self) -> u32 {
        if self == Family::V4 { 7 } else { 8 }
    }

    /// Where source and destination are in the header.
    fn offsets(self) -> (u32, u32) {
        if self == Family::V4 { (12, 16) } else { (8, 24) }
    }
}

/// A message with `struct nfgenmsg`.
pub(super) fn message(kind: u16, flags: u16) -> Message {
    Message::new(kind, flags).raw(&[INET, 0, 0, 0])
}

pub(super) fn chain(name: &str, kind: &str, hook: u32, priority: i32) -> Message {
    message(NEWCHAIN, CREATE)
        .text(1, TABLE)
        .text(3, name)
        .nest(4, |m| m.be32(1, hook).be32(2, priority as u32))
        .be32(5, ACCEPT)
        .text(7, kind)
}

/// A set of keys of this many bytes; `id` is its own in the batch.
pub(super) fn set(name: &str, id: u32, kind: u32, key_bytes: u32) -> Message {
    message(NEWSET, CREATE)
        .text(1, TABLE)
        .text(2, name)
        .be32(3, 0)
        .be32(4, kind)
        .be32(5, key_bytes)
        .be32(10, id)
        // For nft(8) alone: the byte order of what it shows (`NFTNL_UDATA_SET_KEYBYTEORDER`, the host's).
        .attr(13, &[0, 4, 1, 0, 0, 0])
}

/// A map from protocol, address (if `addressed`) and port to address and port.
pub(super) fn map(name: &str, id: u32, family: Family, addressed: bool) -> Message {
    let (middle, bytes) = if addressed { (family.kind(), family.bytes()) } else { (0, 0) };
    let key_kind = if addressed { TYPE_PROTO << 12 | middle << 6 | TYPE_PORT } else { TYPE_PROTO << 6 | TYPE_PORT };
    message(NEWSET, CREATE)
        .text(1, TABLE)
        .text(2, name)
        .be32(3, MAP)
        .be32(4, key_kind)
        .be32(5, 8 + bytes)
        .be32(6, family.kind() << 6 | TYPE_PORT)
        .be32(7, family.bytes() + 4)
        .be32(10, id)
}

/// Puts elements into a set or map, or takes them out: keys, and data where it is a map.
pub(super) fn elements(kind: u16, set: &str, list: &[(Vec<u8>, Option<Vec<u8>>)]) -> Message {
    let flags = if kind == NEWSETELEM { CREATE } else { 0 };
    message(kind, flags).text(1, TABLE).text(2, set).nest(3, |m| {
        list.iter().fold(m, |m, (key, data)| {
            m.nest(1, |m| {
                let m = m.nest(1, |m| m.attr(1, key));
                match data {
                    Some(data) => m.nest(2, |m| m.attr(1, data)),
                    None => m,
                }
            })
        })
    })
}

/// A name as the kernel compares it.
pub(super) fn padded(name: &str) -> Vec<u8> {
    let mut padded = name.as_bytes().to_vec();
    padded.resize(16, 0);
    padded
}

/// A port in a register of its own.
pub(super) fn port_bytes(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

pub(super) fn rule(chain: &str, expressions: impl FnOnce(Rule) -> Rule) -> Message {
    message(NEWRULE, CREATE | APPEND).text(1, TABLE).text(2, chain).nest(4, |m| expressions(Rule(m)).0)
}

/// The expressions of a rule.
pub(super) struct Rule(Message);

impl Rule {
    fn expression(self, name: &str, data: impl FnOnce(Message) -> Message) -> Self {
        Self(self.0.nest(1, |m| m.text(1, name).nest(2, data)))
    }

    fn compare(self, operator: u32, value: &[u8]) -> Self {
        self.expression("cmp", |m| m.be32(1, REG).be32(2, operator).nest(3, |m| m.attr(1, value)))
    }

    fn meta(self, key: u32, register: u32) -> Self {
        self.expression("meta", |m| m.be32(1, register).be32(2, key))
    }

    /// Loads from the packet: base 1 is the network header, 2 the transport header.
    fn payload(self, register: u32, base: u32, offset: u32, len: u32) -> Self {
        self.expression("payload", |m| m.be32(1, register).be32(2, base).be32(3, offset).be32(4, len))
    }

    fn mask(self, mask: &[u8]) -> Self {
        let zero = vec![0; mask.len()];
        self.expression("bitwise", |m| {
            let m = m.be32(1, REG).be32(2, REG).be32(3, mask.len() as u32);
            m.nest(4, |m| m.attr(1, mask)).nest(5, |m| m.attr(1, &zero))
        })
    }

    pub(super) fn family(self, family: Family) -> Self {
        self.meta(META_NFPROTO, REG).compare(EQ, &[family.number()])
    }

    pub(super) fn interface(self, key: u32, operator: u32, name: &str) -> Self {
        self.meta(key, REG).compare(operator, &padded(name))
    }

    /// The interface is one of a set.
    pub(super) fn interface_in(self, key: u32, set: &str) -> Self {
        self.meta(key, REG).expression("lookup", |m| m.text(1, set).be32(2, REG))
    }

    /// The pair of both interfaces is one of a set.
    pub(super) fn pair_in(self, set: &str) -> Self {
        let loaded = self.meta(META_IIFNAME, REG).meta(META_OIFNAME, REG + 1);
        loaded.expression("lookup", |m| m.text(1, set).be32(2, REG))
    }

    pub(super) fn saddr_in(self, subnet: &Cidr) -> Self {
        let family = Family::of(subnet.is_v4());
        let (source, _) = family.offsets();
        self.address_in(family, source, subnet)
    }

    pub(super) fn daddr_in(self, subnet: &Cidr) -> Self {
        let family = Family::of(subnet.is_v4());
        let (_, destination) = family.offsets();
        self.address_in(family, destination, subnet)
    }

    fn address_in(self, family: Family, offset: u32, subnet: &Cidr) -> Self {
        let loaded = self.family(family).payload(REG, 1, offset, family.bytes());
        loaded.mask(&subnet.mask()).compare(EQ, &octets(subnet.base()))
    }

    /// `fib daddr type local`: result 3 is the address type, flag 2 the destination, type 2 local.
    pub(super) fn daddr_is_local(self) -> Self {
        self.expression("fib", |m| m.be32(1, REG).be32(2, 3).be32(3, 2)).compare(EQ, &2u32.to_ne_bytes())
    }

    /// Loads the key of [`map`] and looks it up; if it is there, sends the packet where the map says.
    pub(super) fn dnat_by(self, map: &str, family: Family, addressed: bool) -> Self {
        let mut loaded = self.meta(META_L4PROTO, REG32);
        let mut next = REG32 + 1;
        if addressed {
            loaded = loaded.payload(next, 1, family.offsets().1, family.bytes());
            next += family.bytes() / 4;
        }
        loaded = loaded.payload(next, 2, 2, 2);
        let found = loaded.expression("lookup", |m| m.text(1, map).be32(2, REG).be32(3, REG));
        let port = REG32 + family.bytes() / 4;
        found.expression("nat", |m| {
            let m = m.be32(1, DESTINATION).be32(2, family.number().into());
            // Addresses and ports each from one register: lowest and highest are the same.
            m.be32(3, REG).be32(4, REG).be32(5, port).be32(6, port)
        })
    }

    /// A port of the container's own, asked for at this address.
    pub(super) fn port(self, proto: Proto, port: u16) -> Self {
        let loaded = self.meta(META_L4PROTO, REG).compare(EQ, &[proto.number()]);
        loaded.payload(REG, 2, 2, 2).compare(EQ, &port.to_be_bytes())
    }

    /// Sends the packet to another port of the same address.
    pub(super) fn dnat_to(self, ip: Ipv4Addr, port: u16) -> Self {
        let load = |r: Self, register, value: &[u8]| {
            r.expression("immediate", |m| m.be32(1, register).nest(2, |m| m.attr(1, value)))
        };
        let loaded = load(load(self, REG, &ip.octets()), REG + 1, &port.to_be_bytes());
        loaded.expression("nat", |m| {
            let m = m.be32(1, DESTINATION).be32(2, Family::V4.number().into());
            m.be32(3, REG).be32(4, REG).be32(5, REG + 1).be32(6, REG + 1)
        })
    }

    pub(super) fn known(self) -> Self {
        self.ct(0, CT_KNOWN)
    }

    pub(super) fn translated(self) -> Self {
        self.ct(2, CT_DNAT)
    }

    /// Any of these bits of conntrack's state (key 0) or status (key 2).
    fn ct(self, key: u32, bits: u32) -> Self {
        let loaded = self.expression("ct", |m| m.be32(1, REG).be32(2, key));
        loaded.mask(&bits.to_ne_bytes()).compare(NE, &[0; 4])
    }

    pub(super) fn masquerade(self) -> Self {
        self.expression("masq", |m| m)
    }

    pub(super) fn verdict(self, code: u32) -> Self {
        self.expression("immediate", |m| m.be32(1, 0).nest(2, |m| m.nest(2, |m| m.be32(1, code))))
    }
}
