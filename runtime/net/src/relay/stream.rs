//! One TCP connection: a client's, and ours to the container. What one side doesn't take is kept, no more than was read
//! at once, and nothing further is read meanwhile; so a slow reader slows its sender, and one that idles holds nothing.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with, sockopt};

use super::table::watch;

/// Most reads in one direction before others have their turn.
const MAX_READS: usize = 8;

/// How far a step came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Until a socket is ready again.
    Waits,
    /// Its turn is over, but there is more to do.
    More,
    /// Both sides have ended, or one failed.
    Ended,
}

pub(super) struct Connection {
    client: TcpStream,
    server: TcpStream,
    is_connected: bool,
    /// Addresses that are still to be tried.
    left: Vec<SocketAddr>,
    up: Flow,
    down: Flow,
}

/// One direction.
#[derive(Default)]
struct Flow {
    /// What was read and not yet taken, from `at` on.
    kept: Vec<u8>,
    at: usize,
    read_ended: bool,
    has_ended: bool,
}

impl Connection {
    /// Begins to connect a client to the first of some addresses. `key` is the client's; ours is the next.
    pub fn new(epoll: &OwnedFd, key: u64, client: TcpStream, targets: &[SocketAddr]) -> io::Result<Self> {
        client.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        let mut left: Vec<SocketAddr> = targets.iter().rev().copied().collect();
        let server = connect_any(&mut left)?;
        watch(epoll, &client, key)?;
        watch(epoll, &server, key + 1)?;
        let (up, down) = Default::default();
        Ok(Self { client, server, is_connected: false, left, up, down })
    }

    /// Does what can be done now.
    pub fn step(&mut self, epoll: &OwnedFd, key: u64, buffer: &mut [u8]) -> Progress {
        match self.try_step(epoll, key, buffer) {
            Ok(progress) => progress,
            Err(_) => {
                // Neither side may take what it got for the whole: both see a reset (tcp(7), SO_LINGER).
                for socket in [&self.client, &self.server] {
                    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
                }
                Progress::Ended
            }
        }
    }

    fn try_step(&mut self, epoll: &OwnedFd, key: u64, buffer: &mut [u8]) -> io::Result<Progress> {
        if !self.is_connected {
            if let Some(error) = self.server.take_error()? {
                // It isn't heard there; perhaps at another address.
                self.server = connect_any(&mut self.left).map_err(|_| error)?;
                watch(epoll, &self.server, key + 1)?;
                return Ok(Progress::Waits);
            }
            if self.server.peer_addr().is_err() {
                return Ok(Progress::Waits);
            }
            self.is_connected = true;
            self.server.set_nodelay(true)?;
        }
        let up = self.up.step(&self.client, &self.server, buffer)?;
        let down = self.down.step(&self.server, &self.client, buffer)?;
        Ok(match (self.up.has_ended && self.down.has_ended, up || down) {
            (true, _) => Progress::Ended,
            (false, true) => Progress::More,
            (false, false) => Progress::Waits,
        })
    }
}

impl Flow {
    /// Moves bytes until one of the two isn't ready, or its turn is over (`true`).
    fn step(&mut self, mut from: &TcpStream, to: &TcpStream, buffer: &mut [u8]) -> io::Result<bool> {
        for _ in 0..MAX_READS {
            if !self.flush(to)? || self.has_ended {
                return Ok(false);
            }
            if self.read_ended {
                // One that has closed already needn't be told.
                let _ = to.shutdown(Shutdown::Write);
                self.has_ended = true;
                return Ok(false);
            }
            let count = match from.read(buffer) {
                Ok(0) => {
                    self.read_ended = true;
                    continue;
                }
                Ok(count) => count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let read = buffer.get(..count).unwrap_or_default();
            let taken = write(to, read)?;
            let rest = read.get(taken..).unwrap_or_default();
            if !rest.is_empty() {
                (self.kept, self.at) = (rest.to_vec(), 0);
            }
        }
        Ok(true)
    }

    /// Writes what is kept; whether that is all.
    fn flush(&mut self, to: &TcpStream) -> io::Result<bool> {
        self.at += write(to, self.kept.get(self.at..).unwrap_or_default())?;
        if self.at < self.kept.len() {
            return Ok(false);
        }
        (self.kept, self.at) = Default::default();
        Ok(true)
    }
}

/// Writes as much as is taken now.
fn write(mut to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        match to.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => taken += count,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(taken)
}

/// Begins to connect to the last of some addresses that isn't refused at once.
fn connect_any(left: &mut Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut last: io::Error = ErrorKind::AddrNotAvailable.into();
    while let Some(target) = left.pop() {
        match connect(target) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// How long an address that doesn't answer is tried is the kernel's to say (ip-sysctl.rst, `tcp_syn_retries`: 2 min).
fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    match rustix::net::connect(&socket, &target) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket.into()),
        Err(e) => Err(e.into()),
    }
}
