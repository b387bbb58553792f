//! The thread that answers: one epoll loop over the sockets of all containers and those of questions passed on.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};

use super::forward::Forwarder;
use super::stream::Streams;
use super::wire::{self, Answer};
use super::zone::{Elsewhere, Zone};
use super::{Orders, Shared, Sockets};

/// Stack of the thread.
const STACK_BYTES: usize = 256 << 10;
/// Longest message over UDP.
const PACKET_BYTES: usize = 65_535;
/// Most messages taken from one socket before others have their turn.
const MAX_AT_ONCE: usize = 32;
/// Events taken at once.
const EVENTS: usize = 64;
/// Key of the bell among the epoll's keys.
const BELL: u64 = 0;

/// A container's socket.
enum Source {
    Udp(String, Arc<UdpSocket>),
    Tcp(String, TcpListener),
}

struct Server {
    shared: Arc<Shared>,
    epoll: rustix::fd::OwnedFd,
    sources: HashMap<u64, Source>,
    /// Keys of each container's sockets.
    keys: HashMap<String, Vec<u64>>,
    next_key: u64,
    forwarder: Forwarder,
    streams: Streams,
    /// Turns the order of several addresses of one name.
    turn: usize,
    buffer: Vec<u8>,
}

/// Starts the thread. It ends when it is told to.
pub(super) fn start(shared: Arc<Shared>) -> io::Result<()> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &shared.bell, epoll::EventData::new_u64(BELL), epoll::EventFlags::IN)?;
    let mut server = Server {
        shared,
        epoll,
        sources: HashMap::new(),
        keys: HashMap::new(),
        next_key: BELL + 1,
        forwarder: Forwarder::default(),
        streams: Streams::default(),
        turn: 0,
        buffer: vec![0; PACKET_BYTES],
    };
    let thread = std::thread::Builder::new().name("names".into()).stack_size(STACK_BYTES);
    thread.spawn(
        move || {
            while let Ok(true) = server.step().inspect_err(|e| log::error!("names of containers: {e}")) {}
        },
    )?;
    Ok(())
}

impl Server {
    /// Waits for something to do, and does it; `false`: it is to end.
    fn step(&mut self) -> io::Result<bool> {
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let timeout = self.forwarder.next_deadline().map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() }
        });
        let keys: Vec<u64> = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((ready, _)) => ready.iter().map(|event| event.data.u64()).collect(),
            Err(rustix::io::Errno::INTR) => Vec::new(),
            Err(e) => return Err(e.into()),
        };
        let zone = match self.take_orders() {
            Some(zone) => zone,
            None => return Ok(false),
        };
        for key in keys.into_iter().filter(|key| *key != BELL) {
            match self.sources.get(&key) {
                Some(Source::Udp(id, socket)) => {
                    let (id, socket) = (id.clone(), socket.clone());
                    self.answer_all(&zone, &id, &socket);
                }
                Some(Source::Tcp(id, listener)) => self.streams.accept(id, listener, &zone),
                None => self.forwarder.answered(key, &mut self.buffer),
            }
        }
        self.forwarder.expire(Instant::now(), &self.epoll, &mut self.next_key);
        Ok(true)
    }

    fn take_orders(&mut self) -> Option<Arc<Zone>> {
        // Emptied, so that it wakes only for new rings.
        let _ = rustix::io::read(&self.shared.bell, &mut [0; 8][..]);
        let shared = self.shared.clone();
        let Orders { zone, come, gone, end } = {
            let mut orders = shared.orders();
            let (come, gone) = (std::mem::take(&mut orders.come), std::mem::take(&mut orders.gone));
            Orders { zone: orders.zone.clone(), come, gone, end: orders.end }
        };
        for id in gone.iter().chain(come.iter().map(|(id, _)| id)) {
            for key in self.keys.remove(id).unwrap_or_default() {
                // Closing the last descriptor takes a socket off the epoll by itself.
                self.sources.remove(&key);
            }
            self.forwarder.forget(id);
        }
        for (id, sockets) in come {
            if let Err(e) = self.add(&id, sockets) {
                log::error!("container {id}: it can't find others by name: {e}");
            }
        }
        (!end).then_some(zone)
    }

    fn add(&mut self, id: &str, sockets: Sockets) -> io::Result<()> {
        let Sockets { udp, tcp } = sockets;
        let (first, second) = (self.next_key, self.next_key + 1);
        self.next_key += 2;
        epoll::add(&self.epoll, udp.as_fd(), epoll::EventData::new_u64(first), epoll::EventFlags::IN)?;
        epoll::add(&self.epoll, tcp.as_fd(), epoll::EventData::new_u64(second), epoll::EventFlags::IN)?;
        self.sources.insert(first, Source::Udp(id.into(), Arc::new(udp)));
        self.sources.insert(second, Source::Tcp(id.into(), tcp));
        self.keys.insert(id.into(), vec![first, second]);
        Ok(())
    }

    fn answer_all(&mut self, zone: &Arc<Zone>, id: &str, socket: &Arc<UdpSocket>) {
        for _ in 0..MAX_AT_ONCE {
            let Ok((len, client)) = socket.recv_from(&mut self.buffer) else { return };
            let query = self.buffer.get(..len).unwrap_or_default().to_vec();
            self.answer_one(zone, id, socket, client, query);
        }
    }

    fn answer_one(&mut self, zone: &Zone, id: &str, socket: &Arc<UdpSocket>, client: SocketAddr, query: Vec<u8>) {
        let Some(question) = wire::question(&query) else { return };
        let mut answer = zone.answer(id, &question);
        if let Some(Answer::Addresses(list)) = &mut answer
            && list.len() > 1
        {
            self.turn = self.turn.wrapping_add(1);
            let middle = self.turn % list.len();
            list.rotate_left(middle);
        }
        let answer = answer.or_else(|| match zone.elsewhere(id) {
            Elsewhere::Nowhere => Some(Answer::Failed),
            elsewhere => {
                let asked = self.forwarder.ask(
                    super::forward::Asker { id: id.into(), socket: socket.clone(), client },
                    (query.clone(), question.clone()),
                    elsewhere,
                    (&self.epoll, &mut self.next_key),
                );
                (!asked).then_some(Answer::Failed)
            }
        });
        if let Some(answer) = answer {
            // A client that is gone, or doesn't read, misses its answer.
            let _ = socket.send_to(&wire::reply(&query, &question, &answer), client);
        }
    }
}
