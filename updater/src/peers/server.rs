//! Connections: a thread for each, of which there are few.

use std::io::{self, BufWriter, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::offer::Opened;
use super::ranges::{self, Answer, Piece};
use super::request::{self, MAX_HEAD_BYTES, Refused, Request};

/// Connections at once, in all and from one address.
const MAX_CONNECTIONS: usize = 16;
const MAX_FROM_ONE: usize = 8;
/// Bytes of a file that are in memory at once, for each connection.
const BUFFER_BYTES: usize = 64 << 10;
/// Stack of a connection's thread.
const STACK_BYTES: usize = 128 << 10;
/// Between two tries of what failed for want of something: an address, a descriptor.
const PAUSE: Duration = Duration::from_secs(5);

/// What a server serves.
pub trait Peers: Send + Sync {
    /// Opens the file with this path; `None`: there is none, at least not now.
    fn open(&self, path: &str) -> Option<Opened>;
    /// So many bytes of files were sent.
    fn served(&self, bytes: u64);
}

/// How long somebody is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the first byte of a request.
    pub idle: Duration,
    /// For the whole head of a request, from its first byte.
    pub head: Duration,
    /// For a peer that takes nothing of an answer.
    pub write: Duration,
    /// For an answer as a whole, beside a second for each [`LEAST_BYTES_PER_S`].
    pub answer: Duration,
}

/// Least that a peer has to take.
pub const LEAST_BYTES_PER_S: u64 = 4 << 10;

impl Default for Patience {
    fn default() -> Self {
        let s = Duration::from_secs;
        Self { idle: s(30), head: s(10), write: s(30), answer: s(60) }
    }
}

/// A server.
pub struct Server {
    peers: Arc<dyn Peers>,
    patience: Patience,
    /// Who is connected.
    connected: Mutex<Vec<IpAddr>>,
}

/// A connection's place; dropping it frees it.
struct Held(Arc<Server>, IpAddr);

impl Drop for Held {
    fn drop(&mut self) {
        let mut connected = self.0.connected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = connected.iter().position(|address| *address == self.1) {
            connected.swap_remove(at);
        }
    }
}

impl Server {
    /// For what is served.
    pub fn new(peers: Arc<dyn Peers>, patience: Patience) -> Arc<Self> {
        Arc::new(Self { peers, patience, connected: Mutex::default() })
    }

    /// Listens for as long as the process lives. An address that the host doesn't have yet is tried again and again.
    pub fn run(self: &Arc<Self>, listen: SocketAddr) {
        let mut told = String::new();
        loop {
            match TcpListener::bind(listen) {
                Ok(listener) => {
                    log::info!("peers are served on {listen}");
                    return self.serve(&listener);
                }
                Err(error) if error.to_string() != told => {
                    log::error!("serve peers on {listen}: {error}; trying again");
                    told = error.to_string();
                }
                Err(_) => {}
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Answers whoever connects.
    pub fn serve(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            match listener.accept() {
                Ok((stream, from)) => self.admit(stream, from.ip()),
                Err(error) => {
                    log::warn!("serve peers: {error}");
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, from: IpAddr) {
        let Some(held) = self.place(from) else {
            // A few bytes: the socket's buffer takes them at once.
            let busy = ranges::empty(503, "Service Unavailable", false);
            let _ = stream.set_nonblocking(true).and_then(|()| (&stream).write_all(busy.head.as_bytes()));
            return;
        };
        let server = Arc::clone(self);
        let work = move || {
            let _held = held;
            // Whoever hangs up in the middle is no concern of ours.
            if let Err(error) = server.talk(&stream) {
                log::debug!("peer {from}: {error}");
            }
            let _ = stream.shutdown(Shutdown::Write);
        };
        let builder = std::thread::Builder::new().name("peer".into()).stack_size(STACK_BYTES);
        if let Err(error) = builder.spawn(work) {
            log::warn!("start a thread for the peer {from}: {error}");
        }
    }

    fn place(self: &Arc<Self>, from: IpAddr) -> Option<Held> {
        let mut connected = self.connected.lock().unwrap_or_else(PoisonError::into_inner);
        let from_one = connected.iter().filter(|address| **address == from).count();
        if connected.len() >= MAX_CONNECTIONS || from_one >= MAX_FROM_ONE {
            return None;
        }
        connected.push(from);
        Some(Held(Arc::clone(self), from))
    }

    /// One request after the other.
    fn talk(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(self.patience.write))?;
        let mut received = Vec::new();
        while let Some(request) = self.next(stream, &mut received)? {
            let (answer, opened, keep) = match &request {
                Err(Refused(status, phrase)) => (ranges::empty(*status, phrase, false), None, false),
                Ok(request) => {
                    let (answer, opened) = self.answer(request);
                    (answer, opened.filter(|_| !request.head_only), request.keep)
                }
            };
            self.send(stream, &answer, opened.as_ref())?;
            if !keep {
                break;
            }
        }
        Ok(())
    }

    /// The next request; `None`: there is none.
    fn next(&self, mut stream: &TcpStream, received: &mut Vec<u8>) -> io::Result<Option<Result<Request, Refused>>> {
        let (mut begun, mut piece) = (None, [0; 2048]);
        loop {
            match request::parse(received) {
                Err(refused) => return Ok(Some(Err(refused))),
                Ok(Some((request, length))) => {
                    received.drain(..length);
                    return Ok(Some(Ok(request)));
                }
                Ok(None) => {}
            }
            if !received.is_empty() {
                begun.get_or_insert_with(Instant::now);
            }
            let patience = begun.map_or(self.patience.idle, |at| self.patience.head.saturating_sub(at.elapsed()));
            if patience.is_zero() {
                return Ok(Some(Err(Refused(408, "Request Timeout"))));
            }
            stream.set_read_timeout(Some(patience))?;
            match stream.read(&mut piece) {
                Ok(0) => return Ok(None),
                Ok(count) => received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    // Somebody who asked for nothing is left without a word.
                    let late = Err(Refused(408, "Request Timeout"));
                    return Ok((!received.is_empty()).then_some(late));
                }
                Err(error) => return Err(error),
            }
            debug_assert!(received.len() < 2 * MAX_HEAD_BYTES, "the parser refuses what is longer");
        }
    }

    fn answer(&self, request: &Request) -> (Answer, Option<Opened>) {
        let Some(opened) = self.peers.open(&request.path) else {
            return (ranges::empty(404, "Not Found", request.keep), None);
        };
        // A range of another content is of no use (RFC 9110, section 13.1.5).
        let same = |tag: &String| tag.trim_matches('"') == opened.sha256;
        let range = request.range.as_deref().filter(|_| request.if_range.as_ref().is_none_or(same));
        let part = ranges::part(range, opened.length);
        (ranges::answer(&part, opened.length, &opened.sha256, request.keep), Some(opened))
    }

    /// Sends an answer; without a file, its head alone.
    fn send(&self, stream: &TcpStream, answer: &Answer, opened: Option<&Opened>) -> io::Result<()> {
        let mut writer = BufWriter::new(stream);
        writer.write_all(answer.head.as_bytes())?;
        let Some(opened) = opened else { return writer.flush() };
        let (begun, mut sent) = (Instant::now(), 0u64);
        let mut buffer = vec![0; BUFFER_BYTES];
        for piece in &answer.body {
            let range = match piece {
                Piece::Text(text) => {
                    writer.write_all(text.as_bytes())?;
                    continue;
                }
                Piece::Bytes(range) => range,
            };
            let mut at = range.start;
            while at < range.end {
                let bytes = &mut buffer[..(range.end - at).min(BUFFER_BYTES as u64) as usize];
                opened.read_at(bytes, at)?;
                writer.write_all(bytes)?;
                at += bytes.len() as u64;
                sent += bytes.len() as u64;
                self.peers.served(bytes.len() as u64);
                if begun.elapsed() > self.patience.answer + Duration::from_secs(sent / LEAST_BYTES_PER_S) {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes an answer too slowly"));
                }
            }
        }
        writer.flush()
    }
}
