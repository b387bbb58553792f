//! Interfaces of the host: bridges, and the pairs and links that end in containers (rtnetlink(7)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::netlink::{ACK, CREATE, EXCL, Message, Socket};
use crate::types::Mac;

pub(crate) const NEWLINK: u16 = 16;
const DELLINK: u16 = 17;
const GETLINK: u16 = 18;
const IFLA_ADDRESS: u16 = 1;
pub(crate) const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_FD: u16 = 28;
const UP: u32 = 1;
const IFINFO_BYTES: usize = 16;

/// A link into a container.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inside<'a> {
    /// Where it ends.
    pub netns: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a str,
    /// Its Ethernet address; `None`: it shares its parent's.
    pub mac: Option<Mac>,
    /// Size of a packet.
    pub mtu: Option<u32>,
}

impl Inside<'_> {
    /// The attributes that it is made with.
    fn add(&self, mut m: Message) -> Message {
        m = m.text(IFLA_IFNAME, self.name).u32(IFLA_NET_NS_FD, self.netns.as_raw_fd() as u32);
        if let Some(mac) = self.mac {
            m = m.attr(IFLA_ADDRESS, &mac.0);
        }
        with_mtu(m, self.mtu)
    }
}

fn with_mtu(m: Message, mtu: Option<u32>) -> Message {
    match mtu {
        Some(mtu) => m.u32(IFLA_MTU, mtu),
        None => m,
    }
}

/// `struct ifinfomsg`.
pub(crate) fn ifinfo(index: u32, up: bool) -> [u8; IFINFO_BYTES] {
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

/// The index of an interface that must be there.
pub(crate) fn index_of(socket: &Socket, name: &str) -> io::Result<u32> {
    index(socket, name)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Makes a bridge if there is none of this name, and sets it up. With an address of its own choosing it would take the
/// lowest of its ports', and change it as containers come and go.
pub(crate) fn ensure_bridge(socket: &Socket, name: &str, mac: Mac, mtu: Option<u32>) -> io::Result<u32> {
    if let Some(index) = index(socket, name)? {
        set_up(socket, index)?;
        return Ok(index);
    }
    let message = Message::new(NEWLINK, ACK | CREATE | EXCL).raw(&ifinfo(0, true)).text(IFLA_IFNAME, name);
    let message = with_mtu(message.attr(IFLA_ADDRESS, &mac.0), mtu);
    socket.request(message.nest(IFLA_LINKINFO, |m| m.text(1, "bridge")))?;
    index_of(socket, name)
}

pub(crate) fn set_up(socket: &Socket, index: u32) -> io::Result<()> {
    socket.request(Message::new(NEWLINK, ACK).raw(&ifinfo(index, true)))
}

/// Makes a pair: `name` on the bridge here, the other end in the other namespace, where it is born. `isolated`: it
/// reaches the bridge itself only, not its other ports.
pub(crate) fn make_pair(
    socket: &Socket,
    name: &str,
    bridge: u32,
    isolated: bool,
    inside: Inside<'_>,
) -> io::Result<()> {
    let message = Message::new(NEWLINK, ACK | CREATE | EXCL)
        .raw(&ifinfo(0, true))
        .text(IFLA_IFNAME, name)
        .u32(IFLA_MASTER, bridge);
    let message = with_mtu(message, inside.mtu)
        .nest(IFLA_LINKINFO, |m| m.text(1, "veth").nest(2, |m| m.nest(1, |m| inside.add(m.raw(&ifinfo(0, false))))));
    // Hairpin (`IFLA_BRPORT_MODE`): what a container sends to its own published port goes back through the port it
    // came from. The other is `IFLA_BRPORT_ISOLATED`.
    let port = Message::new(NEWLINK, ACK)
        .raw(&ifinfo(0, false))
        .text(IFLA_IFNAME, name)
        .nest(IFLA_LINKINFO, |m| m.text(4, "bridge").nest(5, |m| m.attr(4, &[1]).attr(33, &[u8::from(isolated)])));
    socket.batch(vec![message, port])
}

/// How a link shares its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// `MACVLAN_MODE_…`.
    Macvlan(u32),
    /// `IPVLAN_MODE_…` and `IPVLAN_F_…`.
    Ipvlan(u16, u16),
}

/// Makes a link over `parent` in the other namespace, where it is born. Its name must be free here too: only of veth's
/// far ends does the kernel look for the name where they are to be. See [`rename`].
pub(crate) fn make_shared(socket: &Socket, parent: u32, sharing: Sharing, inside: Inside<'_>) -> io::Result<()> {
    let message = Message::new(NEWLINK, ACK | CREATE | EXCL).raw(&ifinfo(0, false)).u32(IFLA_LINK, parent);
    socket.request(inside.add(message).nest(IFLA_LINKINFO, |m| match sharing {
        Sharing::Macvlan(mode) => m.text(1, "macvlan").nest(2, |m| m.u32(1, mode)),
        Sharing::Ipvlan(mode, flags) => m.text(1, "ipvlan").nest(2, |m| m.u16(1, mode).u16(2, flags)),
    }))
}

/// Makes an interface that leads nowhere, if there is none of this name. The kernel's module, loaded for the first of
/// them, makes one by itself (`numdummies`), which nobody asked for: it goes.
pub(crate) fn ensure_dummy(socket: &Socket, name: &str) -> io::Result<u32> {
    if let Some(index) = index(socket, name)? {
        return Ok(index);
    }
    let message = Message::new(NEWLINK, ACK | CREATE | EXCL).raw(&ifinfo(0, true)).text(IFLA_IFNAME, name);
    let by_itself = "dummy0";
    let before = index(socket, by_itself)?;
    socket.request(message.nest(IFLA_LINKINFO, |m| m.text(1, "dummy")))?;
    if before.is_none() {
        remove(socket, by_itself)?;
    }
    index_of(socket, name)
}

/// Renames an interface that is down; one that can't be is removed.
pub(crate) fn rename(socket: &Socket, from: &str, to: &str) -> io::Result<()> {
    let index = index_of(socket, from)?;
    let renamed = socket.request(Message::new(NEWLINK, ACK).raw(&ifinfo(index, false)).text(IFLA_IFNAME, to));
    if renamed.is_err() {
        let _ = remove(socket, from);
    }
    renamed
}

/// Makes the interface of a VLAN of another one (`IFLA_VLAN_ID`), which must be up.
pub(crate) fn make_vlan(socket: &Socket, name: &str, below: u32, id: u16) -> io::Result<u32> {
    let message = Message::new(NEWLINK, ACK | CREATE | EXCL).raw(&ifinfo(0, true)).text(IFLA_IFNAME, name);
    socket
        .request(message.u32(IFLA_LINK, below).nest(IFLA_LINKINFO, |m| m.text(1, "vlan").nest(2, |m| m.u16(1, id))))?;
    index_of(socket, name)
}

/// Removes an interface; an absent one is fine.
pub(crate) fn remove(socket: &Socket, name: &str) -> io::Result<()> {
    match socket.request(Message::new(DELLINK, ACK).raw(&ifinfo(0, false)).text(IFLA_IFNAME, name)) {
        Err(e) if is_absent(&e) => Ok(()),
        other => other,
    }
}

fn is_absent(e: &io::Error) -> bool {
    e.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}
