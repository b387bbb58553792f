//! Open ports, and what goes on at them.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::epoll;

use super::datagram::{self, Session};
use super::here;
use super::plan::Port;
use super::stream::{Connection, Progress};
use crate::types::Proto;

/// Key of the bell among the epoll's keys.
pub(super) const BELL: u64 = 0;
/// Most connections and sessions at one port, so that none takes all; further ones are closed, or passed over.
const MAX_AT_PORT: usize = 256;
/// Most of all ports together. Each takes two descriptors at most.
const MAX_IN_ALL: usize = 1024;
/// Most that is taken from one socket before others have their turn.
const MAX_AT_ONCE: usize = 32;
/// Bytes taken at once: the longest datagram.
const BUFFER_BYTES: usize = 65_536;

/// A port's socket.
enum Socket {
    Tcp(TcpListener),
    /// With the sessions by their clients.
    Udp(UdpSocket, HashMap<SocketAddr, u64>),
}

/// An open port.
struct Open {
    socket: Socket,
    targets: Vec<SocketAddr>,
    /// Connections or sessions.
    busy: usize,
}

/// What an epoll's key stands for. A connection has two, the even one for the client's side.
enum Entry {
    Port(Open),
    Connection { port: u64, connection: Box<Connection> },
    Session { port: u64, session: Session },
}

/// All of it.
#[derive(Default)]
pub(super) struct Table {
    entries: HashMap<u64, Entry>,
    /// The keys of containers' ports.
    ports: HashMap<(String, Port), u64>,
    /// Last even key that was given.
    last_key: u64,
    /// Connections and sessions of all ports.
    busy: usize,
    sessions: usize,
    buffer: Vec<u8>,
    has_ended: bool,
}

/// Each change of readiness is told once, so all of it has to be used up.
pub(super) fn watch(epoll: &OwnedFd, socket: impl AsFd, key: u64) -> io::Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    Ok(epoll::add(epoll, socket, epoll::EventData::new_u64(key), flags)?)
}

impl Table {
    /// Opens a port of a container.
    pub fn open(&mut self, epoll: &OwnedFd, id: &str, port: Port, targets: Vec<SocketAddr>) -> io::Result<()> {
        if self.has_ended {
            return Err(io::Error::other("the thread that serves it has ended"));
        }
        let key = self.key();
        let socket = match port.proto {
            Proto::Tcp => {
                let listener = TcpListener::bind(here(port))?;
                listener.set_nonblocking(true)?;
                watch(epoll, &listener, key)?;
                Socket::Tcp(listener)
            }
            Proto::Udp => {
                let socket = UdpSocket::bind(here(port))?;
                socket.set_nonblocking(true)?;
                watch(epoll, &socket, key)?;
                Socket::Udp(socket, HashMap::new())
            }
            Proto::Sctp => return Err(io::ErrorKind::Unsupported.into()),
        };
        self.buffer.resize(BUFFER_BYTES, 0);
        self.entries.insert(key, Entry::Port(Open { socket, targets, busy: 0 }));
        self.ports.insert((id.into(), port), key);
        Ok(())
    }

    /// Has an open port lead elsewhere from now on; what goes on at it ends if that is a change. `false`: it isn't open.
    pub fn retarget(&mut self, id: &str, port: Port, targets: &[SocketAddr]) -> bool {
        let Some(key) = self.ports.get(&(id.to_owned(), port)).copied() else { return false };
        if let Some(Entry::Port(open)) = self.entries.get_mut(&key)
            && open.targets != targets
        {
            open.targets = targets.to_vec();
            self.end_all_at(key);
        }
        true
    }

    /// Closes a port, and what goes on at it.
    pub fn close(&mut self, id: &str, port: Port) {
        let Some(key) = self.ports.remove(&(id.to_owned(), port)) else { return };
        self.end_all_at(key);
        // Closing the last descriptor takes a socket off the epoll by itself.
        self.entries.remove(&key);
    }

    /// Closes everything, for good.
    pub fn end(&mut self) {
        *self = Self { has_ended: true, ..Self::default() };
    }

    /// Whether that has been done.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Does what can be done now at a key; whether there is more.
    pub fn step(&mut self, epoll: &OwnedFd, key: u64) -> bool {
        let even = key & !1;
        match self.entries.get_mut(&even) {
            None => false,
            Some(Entry::Port(Open { socket: Socket::Tcp(_), .. })) => self.accept(epoll, even),
            Some(Entry::Port(Open { socket: Socket::Udp(..), .. })) => self.take(epoll, even),
            Some(Entry::Connection { connection, .. }) => match connection.step(epoll, even, &mut self.buffer) {
                Progress::Waits => false,
                Progress::More => true,
                Progress::Ended => {
                    self.end_one(even);
                    false
                }
            },
            Some(Entry::Session { .. }) => self.answer(even),
        }
    }

    /// Ends sessions that nothing was sent in for long; whether there are others.
    pub fn expire(&mut self, now: Instant) -> bool {
        if self.sessions == 0 {
            return false;
        }
        let is_old = |entry: &Entry| matches!(entry, Entry::Session { session, .. } if session.is_old(now));
        let old: Vec<u64> = self.entries.iter().filter(|(_, entry)| is_old(entry)).map(|(key, _)| *key).collect();
        old.into_iter().for_each(|key| self.end_one(key));
        self.sessions > 0
    }

    fn key(&mut self) -> u64 {
        self.last_key += 2;
        self.last_key
    }

    fn has_room(&self, port: u64) -> bool {
        let at_port = |entry: &Entry| matches!(entry, Entry::Port(open) if open.busy < MAX_AT_PORT);
        self.busy < MAX_IN_ALL && self.entries.get(&port).is_some_and(at_port)
    }

    fn accept(&mut self, epoll: &OwnedFd, port: u64) -> bool {
        for _ in 0..MAX_AT_ONCE {
            let has_room = self.has_room(port);
            let key = self.key();
            let Some(Entry::Port(open)) = self.entries.get_mut(&port) else { return false };
            let Socket::Tcp(listener) = &open.socket else { return false };
            let client: TcpStream = match listener.accept() {
                Ok((client, _)) => client,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => continue,
                // Of descriptors running out the next client's coming is a reminder.
                Err(_) => return false,
            };
            if !has_room {
                continue;
            }
            if let Ok(connection) = Connection::new(epoll, key, client, &open.targets) {
                open.busy += 1;
                self.busy += 1;
                self.entries.insert(key, Entry::Connection { port, connection: Box::new(connection) });
            }
        }
        true
    }

    /// Datagrams from clients.
    fn take(&mut self, epoll: &OwnedFd, port: u64) -> bool {
        for _ in 0..MAX_AT_ONCE {
            let has_room = self.has_room(port);
            let (next, mut buffer) = (self.key(), std::mem::take(&mut self.buffer));
            let mut go_on = false;
            if let Some(Entry::Port(open)) = self.entries.get_mut(&port)
                && let Socket::Udp(socket, sessions) = &mut open.socket
                && let Some((client, datagram)) = datagram::received(socket, &mut buffer)
            {
                go_on = true;
                let known = sessions.get(&client).copied();
                if known.is_none()
                    && has_room
                    && let Some(target) = open.targets.first()
                    && let Ok(session) = Session::new(epoll, next, client, *target)
                {
                    sessions.insert(client, next);
                    open.busy += 1;
                    self.busy += 1;
                    self.sessions += 1;
                    self.entries.insert(next, Entry::Session { port, session });
                }
                if let Some(Entry::Session { session, .. }) = self.entries.get_mut(&known.unwrap_or(next)) {
                    session.send(datagram);
                }
            }
            self.buffer = buffer;
            if !go_on {
                return false;
            }
        }
        true
    }

    /// Datagrams from a container.
    fn answer(&mut self, key: u64) -> bool {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut is_more = false;
        if let Some(Entry::Session { port, session }) = self.entries.get(&key)
            && let Some(Entry::Port(Open { socket: Socket::Udp(socket, _), .. })) = self.entries.get(port)
        {
            is_more = (0..MAX_AT_ONCE).all(|_| session.answer(socket, &mut buffer));
        }
        self.buffer = buffer;
        is_more
    }

    fn end_all_at(&mut self, port: u64) {
        let is_there = |entry: &Entry| match entry {
            Entry::Connection { port: at, .. } | Entry::Session { port: at, .. } => *at == port,
            Entry::Port(_) => false,
        };
        let all: Vec<u64> = self.entries.iter().filter(|(_, entry)| is_there(entry)).map(|(key, _)| *key).collect();
        all.into_iter().for_each(|key| self.end_one(key));
    }

    /// Ends a connection or a session.
    fn end_one(&mut self, key: u64) {
        let (port, client) = match self.entries.remove(&key) {
            Some(Entry::Connection { port, .. }) => (port, None),
            Some(Entry::Session { port, session }) => {
                self.sessions -= 1;
                (port, Some(session.client))
            }
            Some(Entry::Port(_)) | None => return,
        };
        self.busy -= 1;
        if let Some(Entry::Port(open)) = self.entries.get_mut(&port) {
            open.busy -= 1;
            if let (Socket::Udp(_, sessions), Some(client)) = (&mut open.socket, client) {
                sessions.remove(&client);
            }
        }
    }
}
