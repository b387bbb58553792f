//! The UDP socket of a DHCP client. Bound to its link, it works before the link has an address: the kernel then sends
//! from `0.0.0.0`, and the broadcast flag makes servers answer to everybody.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrIn, sockopt};

/// Ports of servers and clients (RFC 2131, section 4.1).
const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Opens the socket of a link.
pub(in crate::network) fn open(link: &str) -> io::Result<UdpSocket> {
    use std::os::fd::AsRawFd as _;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket::socket(AddressFamily::Inet, SockType::Datagram, flags, None)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    socket::setsockopt(&socket, sockopt::Broadcast, &true)?;
    socket::setsockopt(&socket, sockopt::BindToDevice, &OsString::from(link))?;
    socket::bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT)))?;
    Ok(UdpSocket::from(socket))
}

/// Sends to everybody on the link, or to one server.
pub(in crate::network) fn send(socket: &UdpSocket, packet: &[u8], server: Option<Ipv4Addr>) -> io::Result<()> {
    let to = SocketAddrV4::new(server.unwrap_or(Ipv4Addr::BROADCAST), SERVER_PORT);
    socket.send_to(packet, to).map(drop)
}
