//! Questions that no container is the answer to, passed on over UDP to one server after the other. Each goes out from a
//! socket of its own, whose port the kernel chooses at random, so that answers are hard to forge (RFC 5452).

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::wire::{self, Answer, Question};
use super::zone::Elsewhere;

/// Most questions that wait for their answers.
const MAX_WAITING: usize = 512;
/// Most of those of one container, so that none takes them all.
const MAX_WAITING_EACH: usize = 64;
/// How long one server may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most servers that are asked one after the other.
const MAX_SERVERS: usize = 3;

/// Who asks.
pub(super) struct Asker {
    pub id: String,
    pub socket: Arc<UdpSocket>,
    pub client: SocketAddr,
}

struct Waiting {
    asker: Asker,
    query: Vec<u8>,
    question: Question,
    upstream: UdpSocket,
    /// Servers that are still to be asked.
    servers: Vec<SocketAddr>,
    deadline: Instant,
}

/// The questions under way, by their keys.
#[derive(Default)]
pub(super) struct Forwarder(HashMap<u64, Waiting>);

impl Forwarder {
    /// Passes a question on; `false`: it can't be.
    pub(super) fn ask(
        &mut self,
        asker: Asker,
        (query, question): (Vec<u8>, Question),
        elsewhere: Elsewhere,
        (epoll, next_key): (&OwnedFd, &mut u64),
    ) -> bool {
        let of_this = self.0.values().filter(|waiting| waiting.asker.id == asker.id).count();
        if self.0.len() >= MAX_WAITING || of_this >= MAX_WAITING_EACH {
            return false;
        }
        let mut servers = servers(elsewhere);
        servers.reverse();
        match send(&query, &mut servers, epoll, next_key) {
            Some((key, upstream)) => {
                let deadline = Instant::now() + PATIENCE;
                self.0.insert(key, Waiting { asker, query, question, upstream, servers, deadline });
                true
            }
            None => false,
        }
    }

    /// Takes an answer and passes it back.
    pub(super) fn answered(&mut self, key: u64, buffer: &mut [u8]) {
        let Some(waiting) = self.0.get_mut(&key) else { return };
        match waiting.upstream.recv(buffer) {
            Ok(len) => {
                let answer = buffer.get(..len).unwrap_or_default();
                if wire::answers(&waiting.query, &waiting.question, answer) {
                    let _ = waiting.asker.socket.send_to(answer, waiting.asker.client);
                    self.0.remove(&key);
                }
            }
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            // Nobody is there: the next one's turn comes at once.
            Err(_) => waiting.deadline = Instant::now(),
        }
    }

    /// When somebody will have waited long enough.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.0.values().map(|waiting| waiting.deadline).min()
    }

    /// Asks the next server where one took too long; says so where there is none.
    pub(super) fn expire(&mut self, now: Instant, epoll: &OwnedFd, next_key: &mut u64) {
        let late: Vec<u64> = self.0.iter().filter(|(_, w)| w.deadline <= now).map(|(key, _)| *key).collect();
        for key in late {
            let Some(mut waiting) = self.0.remove(&key) else { continue };
            match send(&waiting.query, &mut waiting.servers, epoll, next_key) {
                Some((key, upstream)) => {
                    self.0.insert(key, Waiting { upstream, deadline: now + PATIENCE, ..waiting });
                }
                None => {
                    let answer = wire::reply(&waiting.query, &waiting.question, &Answer::Failed);
                    let _ = waiting.asker.socket.send_to(&answer, waiting.asker.client);
                }
            }
        }
    }

    /// Drops the questions of a container.
    pub(super) fn forget(&mut self, id: &str) {
        self.0.retain(|_, waiting| waiting.asker.id != id);
    }
}

/// Sends a query to the last of these servers that can be sent to.
fn send(query: &[u8], servers: &mut Vec<SocketAddr>, epoll: &OwnedFd, next_key: &mut u64) -> Option<(u64, UdpSocket)> {
    while let Some(server) = servers.pop() {
        let sent = || -> std::io::Result<UdpSocket> {
            let any: IpAddr =
                if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.set_nonblocking(true)?;
            socket.connect(server)?;
            socket.send(query)?;
            epoll::add(epoll, &socket, epoll::EventData::new_u64(*next_key), epoll::EventFlags::IN)?;
            Ok(socket)
        };
        if let Ok(socket) = sent() {
            let key = *next_key;
            *next_key += 1;
            return Some((key, socket));
        }
    }
    None
}

/// The servers to ask, in their order.
pub(super) fn servers(elsewhere: Elsewhere) -> Vec<SocketAddr> {
    let list = match elsewhere {
        Elsewhere::Servers(list) => list,
        Elsewhere::Host => of_host(&fs::read_to_string(keel_spec::paths::RESOLV_CONF).unwrap_or_default()),
        Elsewhere::Nowhere => Vec::new(),
    };
    list.into_iter().take(MAX_SERVERS).map(|ip| SocketAddr::new(ip, 53)).collect()
}

/// The name servers of a `resolv.conf`(5).
fn of_host(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| line.strip_prefix("nameserver")?.trim().parse().ok();
    text.lines().filter_map(server).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_servers_are_read() {
        let servers = of_host("# x\nnameserver 10.0.2.3\nsearch lan\nnameserver\tfd00::1\nnameserver bad\n");
        assert_eq!(servers, ["10.0.2.3".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
    }
}
