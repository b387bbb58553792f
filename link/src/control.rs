//! Client of PID 1's control socket (messages and rules: [`keel_spec::control`]).
//!
//! Calls block, for at most [`TIMEOUT`] a packet. After a failure on the wire a connection would be out of step, so
//! it is given up and the next call opens a new one: a [`Client`] that is kept survives everything but PID 1's own end.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keel_spec::control::{
    Adopted, CodecError, Event, MAX_FDS, MAX_MESSAGE_BYTES, Reply, Request, Service, Shutdown, System, decode, encode,
};
use keel_spec::paths;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};

/// Longest wait for PID 1 to take or give one packet. It never blocks, so only a machine in distress needs this long.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// Most packets in the answer to one request; PID 1's own tables hold less.
const MAX_PACKETS: usize = 16_384;

/// Why PID 1 could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket can't be reached.
    #[error("cannot connect to PID 1 at {path}", path = path.display())]
    Connect {
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The request could not be sent.
    #[error("cannot send a request to PID 1")]
    Send(#[source] std::io::Error),
    /// No answer came.
    #[error("cannot read PID 1's answer")]
    Receive(#[source] std::io::Error),
    /// PID 1 closed the connection: it knows the caller as none of its services, or has too many connections.
    #[error("PID 1 closed the connection: it serves only processes that it started as services")]
    Closed,
    /// PID 1 refused; the text says why.
    #[error("PID 1 refused: {0}")]
    Refused(String),
    /// A message that is too long, or can't be read.
    #[error("message to or from PID 1 is not usable")]
    Codec(#[from] CodecError),
    /// An answer that doesn't belong to the request.
    #[error("PID 1 gave an answer that does not fit the request ({0})")]
    Unexpected(&'static str),
    /// More descriptors than one message may carry.
    #[error("{0} descriptors are more than the {MAX_FDS} that one message may carry")]
    TooManyFds(usize),
}

/// Result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// A connection to PID 1.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    socket: Option<OwnedFd>,
}

/// The answer to one request: packets before the last, the last, and the descriptors that came with them.
#[derive(Debug)]
struct Answer {
    items: Vec<Reply>,
    last: Reply,
    fds: Vec<OwnedFd>,
}

impl Client {
    /// Connects to PID 1.
    pub fn connect() -> Result<Self> {
        Self::connect_to(Path::new(paths::CONTROL_SOCKET))
    }

    /// Connects to a control socket elsewhere, as tests do.
    pub fn connect_to(path: &Path) -> Result<Self> {
        Ok(Self { path: path.to_owned(), socket: Some(open(path)?) })
    }

    /// Speaks over a connected `SOCK_SEQPACKET` socket. `path` is where a failed connection is opened anew.
    pub fn from_socket(socket: OwnedFd, path: &Path) -> Result<Self> {
        set_timeouts(&socket).map_err(|source| Error::Connect { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), socket: Some(socket) })
    }

    /// Says that the calling service has finished starting.
    pub fn ready(&mut self) -> Result<()> {
        self.done(&Request::Ready, &[])
    }

    /// Says in one line what the calling service is doing; cut at 256 bytes.
    pub fn status(&mut self, text: &str) -> Result<()> {
        let end = text.floor_char_boundary(256);
        self.done(&Request::Status(text.get(..end).unwrap_or_default().into()), &[])
    }

    /// State of each supervised service.
    pub fn services(&mut self) -> Result<Vec<Service>> {
        self.list(&Request::Services, |reply| match reply {
            Reply::Service(service) => Some(service),
            _ => None,
        })
    }

    /// State of the machine as PID 1 knows it.
    pub fn system(&mut self) -> Result<System> {
        match self.call(&Request::System, &[])?.last {
            Reply::System(system) => Ok(system),
            _ => Err(Error::Unexpected("system")),
        }
    }

    /// A service's log (`init`: PID 1's own): one or two readable descriptors, the older part first. Each call opens
    /// them anew, so each reader has an offset of its own.
    pub fn log(&mut self, service: &str) -> Result<Vec<OwnedFd>> {
        self.fds(&Request::Log { service: service.into() })
    }

    /// The last lines of all logs, by time, as a readable file.
    pub fn last_lines(&mut self) -> Result<OwnedFd> {
        let fds = self.fds(&Request::LastLines)?;
        fds.into_iter().next().ok_or(Error::Unexpected("no descriptor"))
    }

    /// Stops everything in order, then reboots or powers off. Returns before that begins.
    pub fn shutdown(&mut self, how: Shutdown, reason: &str) -> Result<()> {
        let end = reason.floor_char_boundary(512);
        self.done(&Request::Shutdown { how, reason: reason.get(..end).unwrap_or_default().into() }, &[])
    }

    /// Says that the running release is good.
    pub fn trial_passed(&mut self) -> Result<()> {
        self.done(&Request::TrialPassed, &[])
    }

    /// Moves the trial's deadline to `deadline_ms` milliseconds after boot.
    pub fn trial_deadline(&mut self, deadline_ms: u64) -> Result<()> {
        self.done(&Request::TrialDeadline { deadline_ms }, &[])
    }

    /// Leaves copies of descriptors with PID 1 under `name`; at most [`MAX_FDS`].
    pub fn store_fds(&mut self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.done(&Request::StoreFds { name: name.into() }, fds)
    }

    /// Names of all descriptor sets that this service stored.
    pub fn list_fds(&mut self) -> Result<Vec<String>> {
        self.list(&Request::ListFds, |reply| match reply {
            Reply::Stored(name) => Some(name),
            _ => None,
        })
    }

    /// Copies of the descriptors under `name`, in the order in which they were stored.
    pub fn fetch_fds(&mut self, name: &str) -> Result<Vec<OwnedFd>> {
        self.fds(&Request::FetchFds { name: name.into() })
    }

    /// Has PID 1 close the descriptors under `name`. Not an error if there are none.
    pub fn drop_fds(&mut self, name: &str) -> Result<()> {
        self.done(&Request::DropFds { name: name.into() }, &[])
    }

    /// Has PID 1 keep the exit of process `pid`, which is its child, under `id`.
    pub fn adopt(&mut self, id: &str, pid: u32, pidfd: BorrowedFd<'_>) -> Result<()> {
        self.done(&Request::Adopt { id: id.into(), pid }, &[pidfd])
    }

    /// All adopted processes, those that ended included.
    pub fn adopted(&mut self) -> Result<Vec<Adopted>> {
        self.list(&Request::Adopted, |reply| match reply {
            Reply::Adopted(adopted) => Some(adopted),
            _ => None,
        })
    }

    /// Drops an adopted process from PID 1's table. Not an error if it isn't there.
    pub fn forget(&mut self, id: &str) -> Result<()> {
        self.done(&Request::Forget { id: id.into() }, &[])
    }

    /// Turns the connection into a stream of events. Exits before this call are found by [`Client::adopted`] on
    /// another connection, asked after this returns, so that none is missed.
    pub fn subscribe(mut self) -> Result<Events> {
        self.done(&Request::Subscribe, &[])?;
        let socket = self.socket.take().ok_or(Error::Closed)?;
        set_socket_timeout(&socket, Timeout::Recv, None).map_err(|source| Error::Receive(source.into()))?;
        Ok(Events { socket })
    }

    fn done(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<()> {
        match self.call(request, fds)?.last {
            Reply::Done => Ok(()),
            _ => Err(Error::Unexpected("done")),
        }
    }

    fn fds(&mut self, request: &Request) -> Result<Vec<OwnedFd>> {
        let answer = self.call(request, &[])?;
        match answer.last {
            Reply::Fds => Ok(answer.fds),
            _ => Err(Error::Unexpected("descriptors")),
        }
    }

    fn list<T>(&mut self, request: &Request, pick: impl Fn(Reply) -> Option<T>) -> Result<Vec<T>> {
        let answer = self.call(request, &[])?;
        answer.items.into_iter().map(|reply| pick(reply).ok_or(Error::Unexpected("list"))).collect()
    }

    fn call(&mut self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Answer> {
        let message = encode(request)?;
        if fds.len() > MAX_FDS {
            return Err(Error::TooManyFds(fds.len()));
        }
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open(&self.path)?,
        };
        send(&socket, &message, fds)?;
        let answer = read_answer(&socket)?;
        self.socket = Some(socket);
        match answer.last {
            Reply::Refused(reason) => Err(Error::Refused(reason)),
            _ => Ok(answer),
        }
    }
}

/// Events from PID 1, as they happen.
#[derive(Debug)]
pub struct Events {
    socket: OwnedFd,
}

impl Events {
    /// Waits for the next event, without a time-out. [`Error::Closed`]: PID 1 dropped this subscriber because it did
    /// not keep up; subscribe again and ask for [`Client::adopted`].
    #[expect(clippy::should_implement_trait, reason = "an iterator would hide that an error ends the stream")]
    pub fn next(&mut self) -> Result<Event> {
        match receive(&self.socket)?.0 {
            Reply::Event(event) => Ok(event),
            _ => Err(Error::Unexpected("event")),
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    let attempt = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        set_timeouts(&socket)?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(socket)
    };
    attempt().map_err(|source: std::io::Error| Error::Connect { path: path.to_owned(), source })
}

fn set_timeouts(socket: &OwnedFd) -> std::io::Result<()> {
    set_socket_timeout(socket, Timeout::Send, Some(TIMEOUT))?;
    set_socket_timeout(socket, Timeout::Recv, Some(TIMEOUT))?;
    Ok(())
}

fn send(socket: &OwnedFd, message: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Error::TooManyFds(fds.len()));
    }
    match retry(|| sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL)) {
        Ok(_) => Ok(()),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(Error::Closed),
        Err(source) => Err(Error::Send(source.into())),
    }
}

fn read_answer(socket: &OwnedFd) -> Result<Answer> {
    let mut answer = Answer { items: Vec::new(), last: Reply::Done, fds: Vec::new() };
    for _ in 0..MAX_PACKETS {
        let (reply, fds) = receive(socket)?;
        answer.fds.extend(fds);
        if reply.is_last() {
            answer.last = reply;
            return Ok(answer);
        }
        answer.items.push(reply);
    }
    Err(Error::Unexpected("endless list"))
}

fn receive(socket: &OwnedFd) -> Result<(Reply, Vec<OwnedFd>)> {
    let mut buffer = [0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        retry(|| recvmsg(socket, &mut [IoSliceMut::new(&mut buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)).map_err(
            |source| match source {
                Errno::CONNRESET => Error::Closed,
                source => Error::Receive(source.into()),
            },
        )?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(Error::Codec(CodecError::TooLong(received.bytes)));
    }
    match buffer.get(..received.bytes) {
        Some([]) | None => Err(Error::Closed),
        Some(message) => Ok((decode(message)?, fds)),
    }
}

/// Repeats a call that a signal broke off; bounded, since a storm of signals is a fault of its own.
fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..1000 {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::INTR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::socketpair;
    use std::io::{Read, Write};

    /// A client, and the other end with a thread that answers each request with `answers`.
    fn against(answers: Vec<(Reply, Vec<OwnedFd>)>) -> (Client, std::thread::JoinHandle<Request>) {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let server = std::thread::spawn(move || {
            let mut buffer = [0; MAX_MESSAGE_BYTES];
            let count = rustix::io::read(&theirs, &mut buffer).unwrap();
            for (reply, fds) in answers {
                let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
                send(&theirs, &encode(&reply).unwrap(), &fds).unwrap();
            }
            decode(&buffer[..count]).unwrap()
        });
        (Client::from_socket(ours, Path::new("/nonexistent")).unwrap(), server)
    }

    #[test]
    fn a_list_is_read_to_its_end() {
        let stored = |name: &str| (Reply::Stored(name.into()), vec![]);
        let (mut client, server) = against(vec![stored("a"), stored("b"), (Reply::Done, vec![])]);
        assert_eq!(client.list_fds().unwrap(), ["a", "b"]);
        assert_eq!(server.join().unwrap(), Request::ListFds);
    }

    #[test]
    fn descriptors_arrive_usable() {
        let (read, write) = std::io::pipe().unwrap();
        let (mut client, server) = against(vec![(Reply::Fds, vec![OwnedFd::from(read)])]);
        let fds = client.fetch_fds("x").unwrap();
        server.join().unwrap();
        (&write).write_all(b"hi").unwrap();
        drop(write);
        let mut text = String::new();
        std::fs::File::from(fds.into_iter().next().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "hi");
    }

    #[test]
    fn a_refusal_keeps_its_reason_and_the_connection() {
        let (mut client, _server) = against(vec![(Reply::Refused("no such service".into()), vec![])]);
        assert!(matches!(client.log("x"), Err(Error::Refused(reason)) if reason == "no such service"));
        assert!(client.socket.is_some());
    }

    #[test]
    fn a_closed_connection_is_named_and_given_up() {
        let (mut client, _server) = against(vec![]);
        assert!(matches!(client.system(), Err(Error::Closed)));
        assert!(client.socket.is_none());
    }
}
