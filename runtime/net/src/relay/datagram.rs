//! UDP: each client has a session, a socket of ours to the container, so that answers find their way back.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::table::watch;

/// A session in which a client has sent nothing for so long is over (the kernel forgets an answered flow after 120 s:
/// nf_conntrack-sysctl.rst, `nf_conntrack_udp_timeout_stream`).
const IDLE: Duration = Duration::from_secs(120);

pub(super) struct Session {
    /// Who it is.
    pub client: SocketAddr,
    socket: UdpSocket,
    used: Instant,
}

impl Session {
    /// A client's first datagram has come.
    pub fn new(epoll: &OwnedFd, key: u64, client: SocketAddr, target: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect(target)?;
        watch(epoll, &socket, key)?;
        Ok(Self { client, socket, used: Instant::now() })
    }

    /// Whether it is over.
    pub fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) >= IDLE
    }

    /// Passes on what the client sent. Datagrams get lost: one that isn't taken now does.
    pub fn send(&mut self, datagram: &[u8]) {
        self.used = Instant::now();
        let _ = self.socket.send(datagram);
    }

    /// Passes on an answer of the container; `false`: there is none now.
    pub fn answer(&self, port: &UdpSocket, buffer: &mut [u8]) -> bool {
        match self.socket.recv(buffer) {
            Ok(count) => {
                let _ = port.send_to(buffer.get(..count).unwrap_or_default(), self.client);
                true
            }
            // Nobody listens there: the next datagram may find somebody.
            Err(e) => e.kind() == io::ErrorKind::ConnectionRefused,
        }
    }
}

/// What a client has sent; `None`: nothing now.
pub(super) fn received<'a>(socket: &UdpSocket, buffer: &'a mut [u8]) -> Option<(SocketAddr, &'a [u8])> {
    let (count, client) = socket.recv_from(buffer).ok()?;
    Some((client, buffer.get(..count)?))
}
