//! The control socket: connections, and packets in and out. What requests mean is in [`crate::requests`].
//!
//! Nothing here waits. A client's next request is read only when its last answer has been taken, so a client that
//! doesn't read holds up nobody but itself; a subscriber that doesn't is dropped when its queue is full.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use keel_spec::control::{MAX_FDS, MAX_MESSAGE_BYTES, Reply, Request, decode, encode};
use rustix::io::Errno;
use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recvmsg,
    sendmsg, socket_with,
};

/// Most connections at a time.
pub const MAX_CLIENTS: usize = 32;
/// Most packets that wait for a client: the longest list, and some events.
const MAX_QUEUED: usize = 6000;

/// One packet that waits to be sent.
type Packet = (Vec<u8>, Vec<OwnedFd>);

/// One connection.
pub struct Client {
    socket: OwnedFd,
    /// The service that its peer belongs to.
    pub service: usize,
    /// Whether it asked for events.
    pub subscribed: bool,
    queue: VecDeque<Packet>,
}

/// What reading from a client gave.
pub enum Received {
    /// A request and the descriptors with it.
    Request(Request, Vec<OwnedFd>),
    /// Nothing more at present.
    Nothing,
    /// The connection is over, or broke the rules.
    Gone,
}

/// Opens the listening socket, for root alone.
pub fn open_listener(path: &Path) -> io::Result<OwnedFd> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let _ = fs::remove_file(path);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, 16)?;
    Ok(socket)
}

/// Takes the next waiting connection: its socket and the process that made it.
pub fn accept(listener: &OwnedFd) -> Option<(OwnedFd, u32)> {
    let socket = accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok()?;
    let peer = socket_peercred(&socket).ok()?;
    Some((socket, u32::try_from(peer.pid.as_raw_pid()).ok()?))
}

/// The name of the service in whose cgroup a process is, from the content of `/proc/<pid>/cgroup`.
pub fn service_in(cgroup: &str) -> Option<&str> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/keel/"))?;
    path.split('/').next()
}

impl Client {
    /// A connection whose peer belongs to `service`.
    pub fn new(socket: OwnedFd, service: usize) -> Self {
        Self { socket, service, subscribed: false, queue: VecDeque::new() }
    }

    /// Its socket, to be waited for.
    pub fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether packets wait to be sent.
    pub fn is_behind(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Reads one request.
    pub fn receive(&self) -> Received {
        let mut buffer = [0; MAX_MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(&self.socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags) {
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Received::Nothing,
            Err(_) => return Received::Gone,
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Received::Gone;
        }
        match buffer.get(..received.bytes).map(decode) {
            Some(Ok(request)) if received.bytes > 0 => Received::Request(request, fds),
            _ => Received::Gone,
        }
    }

    /// Queues a packet. `false`: its queue is full, or the packet too long; the client is to be dropped.
    pub fn queue(&mut self, reply: &Reply, fds: Vec<OwnedFd>) -> bool {
        match encode(reply) {
            Ok(bytes) if self.queue.len() < MAX_QUEUED => {
                self.queue.push_back((bytes, fds));
                true
            }
            _ => false,
        }
    }

    /// Sends what can be sent now. `false`: the connection is over.
    pub fn flush(&mut self) -> bool {
        while let Some((bytes, fds)) = self.queue.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
                return false;
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut control, flags) {
                Ok(_) => drop(self.queue.pop_front()),
                Err(Errno::AGAIN | Errno::INTR) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{send, socketpair};

    fn pair() -> (Client, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Client::new(ours, 0), theirs)
    }

    #[test]
    fn requests_are_read_one_by_one() {
        let (client, peer) = pair();
        assert!(matches!(client.receive(), Received::Nothing));
        send(&peer, &encode(&Request::Ready).unwrap(), SendFlags::empty()).unwrap();
        send(&peer, &encode(&Request::System).unwrap(), SendFlags::empty()).unwrap();
        assert!(matches!(client.receive(), Received::Request(Request::Ready, fds) if fds.is_empty()));
        assert!(matches!(client.receive(), Received::Request(Request::System, _)));
        drop(peer);
        assert!(matches!(client.receive(), Received::Gone));
    }

    #[test]
    fn bad_packets_end_the_connection() {
        for bytes in [vec![0xff; 10], vec![0; MAX_MESSAGE_BYTES + 1], vec![0, 0]] {
            let (client, peer) = pair();
            send(&peer, &bytes, SendFlags::empty()).unwrap();
            assert!(matches!(client.receive(), Received::Gone), "{} bytes", bytes.len());
        }
    }

    #[test]
    fn a_client_that_does_not_read_fills_its_queue_and_no_more() {
        let (mut client, peer) = pair();
        let reply = Reply::Stored("x".repeat(100));
        let mut taken = 0;
        while client.queue(&reply, Vec::new()) {
            assert!(client.flush());
            taken += 1;
            assert!(taken < 2 * MAX_QUEUED);
        }
        assert!(client.is_behind());
        drop(peer);
        assert!(!client.flush());
    }

    #[test]
    fn only_services_cgroups_count() {
        assert_eq!(service_in("0::/keel/runtime\n"), Some("runtime"));
        assert_eq!(service_in("1:name=x:/keel/a\n0::/keel/host/sub\n"), Some("host"));
        for other in ["0::/containers/abc\n", "0::/\n", "", "0::/keelx/runtime\n", "1:cpu:/keel/runtime\n"] {
            assert_eq!(service_in(other), None, "{other:?}");
        }
    }
}
