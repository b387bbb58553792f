//! Translation and forwarding rules: our own nf_tables table. It is replaced whole and atomically when networks change;
//! published ports are elements of maps in it, which come and go with their containers, so that a packet costs the same
//! whatever their number.
//!
//! - `rule`: expressions and messages

mod rule;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::{Cidr, octets};
use crate::netlink::{CREATE, Message, Socket};
use crate::state::State;
use crate::types::{PortMap, Proto, Sandbox};
use rule::{
    ACCEPT, DELSETELEM, DROP, EQ, Family, META_IIFNAME, META_OIFNAME, NE, NEWSETELEM, SUBSYSTEM, TABLE, TYPE_IFNAME,
    chain, elements, map, message, padded, port_bytes, rule, set,
};

const NEWTABLE: u16 = SUBSYSTEM << 8;
const DELTABLE: u16 = SUBSYSTEM << 8 | 2;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// Hooks (`NF_INET_…`).
const PREROUTING: u32 = 0;
const FORWARD: u32 = 2;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;

/// Most elements of one message: attributes are at most 64 KiB long.
const ELEMENTS_AT_ONCE: usize = 512;

/// The elements of a container's ports, by the map that they are in.
type Elements = BTreeMap<String, Vec<(Vec<u8>, Option<Vec<u8>>)>>;

/// Replaces the table by one for these networks and containers.
pub(crate) fn replace(state: &State) -> io::Result<()> {
    let table = |kind, flags| message(kind, flags).text(1, TABLE);
    // Making it first lets the deletion succeed where there was none.
    let mut batch = vec![table(NEWTABLE, CREATE), table(DELTABLE, 0), table(NEWTABLE, CREATE)];
    batch.extend([
        set("bridges", 1, TYPE_IFNAME, 16),
        set("internal", 2, TYPE_IFNAME, 16),
        set("talking", 3, TYPE_IFNAME << 6 | TYPE_IFNAME, 32),
    ]);
    for (family, id) in Family::BOTH.into_iter().zip([4, 6]) {
        batch.push(map(&named("published", family), id, family, true));
        batch.push(map(&named("anywhere", family), id + 1, family, false));
    }
    batch.extend([
        chain("guard", "filter", PREROUTING, -300),
        chain("prerouting", "nat", PREROUTING, -100),
        chain("output", "nat", OUTPUT, -100),
        chain("postrouting", "nat", POSTROUTING, 100),
        chain("forward", "filter", FORWARD, 0),
    ]);
    batch.extend(memberships(state));
    let mut all = Elements::new();
    for sandbox in state.sandboxes.values() {
        for (name, list) in ports_of(sandbox) {
            all.entry(name).or_default().extend(list);
        }
    }
    batch.extend(messages(NEWSETELEM, all));
    batch.extend(translations(state));
    batch.extend(forwarding());
    send(batch)
}

/// Replaces the elements of one container's ports. `Err`: they aren't as was thought, and the table is as before.
pub(crate) fn change(before: &Sandbox, after: &Sandbox) -> io::Result<()> {
    let (old, new) = (ports_of(before), ports_of(after));
    if old == new {
        return Ok(());
    }
    let mut batch = messages(DELSETELEM, old);
    batch.extend(messages(NEWSETELEM, new));
    send(batch)
}

/// In a container's namespace: has what is sent to a port of an address there reach another port, by protocol. The
/// table is replaced, so that sockets opened anew are found.
pub(crate) fn redirect(ip: Ipv4Addr, from: u16, to: &[(Proto, u16)]) -> io::Result<()> {
    let table = |kind, flags| message(kind, flags).text(1, TABLE);
    let mut batch = vec![table(NEWTABLE, CREATE), table(DELTABLE, 0), table(NEWTABLE, CREATE)];
    batch.push(chain("names", "nat", OUTPUT, -100));
    let address = Cidr::around(ip.into(), 32).ok_or(io::ErrorKind::InvalidInput)?;
    for (proto, port) in to {
        batch.push(rule("names", |r| r.daddr_in(&address).port(*proto, from).dnat_to(ip, *port)));
    }
    send(batch)
}

fn send(batch: Vec<Message>) -> io::Result<()> {
    let mut whole = vec![begin_or_end(BATCH_BEGIN)];
    whole.extend(batch);
    // Failures are always told; of success the last message tells.
    if let Some(last) = whole.pop() {
        whole.push(last.acknowledged());
    }
    whole.push(begin_or_end(BATCH_END));
    Socket::netfilter()?.batch(whole)
}

fn begin_or_end(kind: u16) -> Message {
    Message::new(kind, 0).raw(&[0, 0, 0, SUBSYSTEM as u8])
}

fn named(map: &str, family: Family) -> String {
    format!("{map}{}", family.suffix())
}

/// Which bridge is in which set.
fn memberships(state: &State) -> Vec<Message> {
    let mut sets = Elements::new();
    for network in state.bridges() {
        let name = padded(&network.bridge());
        let mut add = |set: &str, key: Vec<u8>| sets.entry(set.into()).or_default().push((key, None));
        add("bridges", name.clone());
        if network.internal {
            add("internal", name.clone());
        }
        if network.talks() {
            add("talking", [name.clone(), name].concat());
        }
    }
    messages(NEWSETELEM, sets)
}

/// The elements of a container's published ports.
fn ports_of(sandbox: &Sandbox) -> Elements {
    let mut all = Elements::new();
    let Some(outward) = sandbox.published() else { return all };
    for port in &sandbox.ports {
        for ip in [Some(IpAddr::from(outward.ip)), outward.ip6.map(IpAddr::from)].into_iter().flatten() {
            if port.host_ip.is_none_or(|host| host.is_ipv4() == ip.is_ipv4()) {
                let (map, key) = port_key(port, Family::of(ip.is_ipv4()));
                let data = [octets(ip), port_bytes(port.container_port).to_vec()].concat();
                all.entry(map).or_default().push((key, Some(data)));
            }
        }
    }
    all
}

fn port_key(port: &PortMap, family: Family) -> (String, Vec<u8>) {
    let proto = [port.proto.number(), 0, 0, 0];
    match port.host_ip.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => {
            let key = [&proto[..], &octets(ip), &port_bytes(port.host_port)].concat();
            (named("published", family), key)
        }
        None => (named("anywhere", family), [proto, port_bytes(port.host_port)].concat()),
    }
}

fn messages(kind: u16, all: Elements) -> Vec<Message> {
    let parts = all.iter().flat_map(|(set, list)| list.chunks(ELEMENTS_AT_ONCE).map(move |part| (set, part)));
    parts.map(|(set, part)| elements(kind, set, part)).collect()
}

fn loopback() -> Option<Cidr> {
    Cidr::around(Ipv4Addr::LOCALHOST.into(), 8)
}

fn translations(state: &State) -> Vec<Message> {
    let mut batch = Vec::new();
    // Nothing can be sent from the IPv6 loopback to elsewhere: see `relay`.
    if let Some(local) = Cidr::around(Ipv6Addr::LOCALHOST.into(), 128) {
        batch.push(rule("output", |r| r.daddr_in(&local).verdict(ACCEPT)));
    }
    for family in Family::BOTH {
        for hook in ["prerouting", "output"] {
            batch.push(rule(hook, |r| r.family(family).dnat_by(&named("published", family), family, true)));
            let anywhere = named("anywhere", family);
            batch.push(rule(hook, |r| r.daddr_is_local().family(family).dnat_by(&anywhere, family, false)));
        }
    }
    for network in state.bridges() {
        let bridge = network.bridge();
        for subnet in network.pools.iter().map(|pool| &pool.subnet) {
            if network.masquerades() {
                batch.push(rule("postrouting", |r| {
                    r.saddr_in(subnet).interface(META_OIFNAME, NE, &bridge).masquerade()
                }));
            }
            // Hairpin: a container that reaches another, or itself, by a published port must get its answers through
            // us.
            batch.push(rule("postrouting", |r| {
                r.saddr_in(subnet).interface(META_OIFNAME, EQ, &bridge).translated().masquerade()
            }));
        }
    }
    if let Some(local) = loopback() {
        batch.push(rule("postrouting", |r| r.saddr_in(&local).interface_in(META_OIFNAME, "bridges").masquerade()));
        // Published ports work on the host's loopback by `route_localnet`; without this, containers and the network
        // behind them could reach the host's own loopback services the same way (CVE-2020-8558).
        batch.push(rule("guard", |r| r.daddr_in(&local).interface_in(META_IIFNAME, "bridges").verdict(DROP)));
    }
    batch
}

fn forwarding() -> Vec<Message> {
    vec![
        rule("forward", |r| r.interface_in(META_IIFNAME, "bridges").known().verdict(ACCEPT)),
        rule("forward", |r| r.interface_in(META_OIFNAME, "bridges").known().verdict(ACCEPT)),
        rule("forward", |r| r.pair_in("talking").verdict(ACCEPT)),
        // Internal networks lead nowhere, not even to what other networks publish.
        rule("forward", |r| r.interface_in(META_IIFNAME, "internal").verdict(DROP)),
        rule("forward", |r| r.interface_in(META_OIFNAME, "internal").verdict(DROP)),
        // Nobody outside, and in no other network, reaches a container but by a published port.
        rule("forward", |r| r.interface_in(META_OIFNAME, "bridges").translated().verdict(ACCEPT)),
        rule("forward", |r| r.interface_in(META_OIFNAME, "bridges").verdict(DROP)),
    ]
}
