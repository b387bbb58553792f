//! The name server's sockets in a container's namespace. They are at ports of the kernel's choosing, so that a container
//! can be a name server itself; a rule there leads port 53 to them.

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use crate::firewall;
use crate::types::Proto;

/// Where containers find it, as with Docker.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The sockets of one container.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

/// Opens them; to be called in the container's namespace, whose loopback is up.
pub(crate) fn open() -> io::Result<Sockets> {
    let udp = UdpSocket::bind((ADDRESS, 0))?;
    let tcp = TcpListener::bind((ADDRESS, 0))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    let ports = [(Proto::Udp, udp.local_addr()?.port()), (Proto::Tcp, tcp.local_addr()?.port())];
    firewall::redirect(ADDRESS, 53, &ports)?;
    Ok(Sockets { udp, tcp })
}
