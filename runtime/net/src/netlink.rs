//! Netlink messages (netlink(7), Documentation/userspace-api/netlink) and blocking sockets. Written out by hand: the
//! few messages used here are shorter so than through a library of all of them, and cost no code on the host.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size_force, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};

pub(crate) const REQUEST: u16 = 0x1;
pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const EXCL: u16 = 0x200;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const NESTED: u16 = 0x8000;
/// How long the kernel may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest batch: room for the ports of some ten thousand containers.
const BATCH_BYTES: usize = 16 << 20;
/// Most packets of one answer.
const MAX_PACKETS: usize = 4096;
/// Room for a packet: the kernel's dumps use up to 32 KiB.
const PACKET_BYTES: usize = 64 << 10;

/// A message being written.
#[derive(Clone, Debug)]
pub(crate) struct Message(Vec<u8>);

impl Message {
    pub(crate) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | REQUEST).to_ne_bytes());
        Self(bytes)
    }

    /// Appends the fixed part, or that of a nested message.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self.pad();
        self
    }

    pub(crate) fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    /// A text with its closing zero byte.
    pub(crate) fn text(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attr(kind, &bytes)
    }

    pub(crate) fn u32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    pub(crate) fn u16(self, kind: u16, value: u16) -> Self {
        self.attr(kind, &value.to_ne_bytes())
    }

    /// In network byte order, as nf_tables wants its numbers.
    pub(crate) fn be32(self, kind: u16, value: u32) -> Self {
        self.attr(kind, &value.to_be_bytes())
    }

    pub(crate) fn nest(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let at = self.0.len();
        self = inner(self.attr(kind | NESTED, &[]));
        let len = (self.0.len() - at) as u16;
        self.0[at..at + 2].copy_from_slice(&len.to_ne_bytes());
        self
    }

    /// Asks the kernel to tell of success, too.
    pub(crate) fn acknowledged(mut self) -> Self {
        let flags = u16::from_ne_bytes([self.0[6], self.0[7]]) | ACK;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn finish(mut self, sequence: u32) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[0..4].copy_from_slice(&len.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.0
    }
}

/// A message of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    kind: u16,
    sequence: u32,
    pub payload: Vec<u8>,
}

/// A socket of the calling thread's network namespace.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl Socket {
    /// rtnetlink is protocol 0, so none has to be named.
    pub(crate) fn route() -> io::Result<Self> {
        Self::open(None)
    }

    /// With room for a batch of [`BATCH_BYTES`], which the kernel takes only whole.
    pub(crate) fn netfilter() -> io::Result<Self> {
        let socket = Self::open(Some(netlink::NETFILTER))?;
        set_socket_send_buffer_size_force(&socket.0, BATCH_BYTES)?;
        Ok(socket)
    }

    fn open(protocol: Option<rustix::net::Protocol>) -> io::Result<Self> {
        let kind = SocketType::RAW;
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, protocol)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(TIMEOUT))?;
        set_socket_timeout(&fd, Timeout::Send, Some(TIMEOUT))?;
        Ok(Self(fd))
    }

    /// Sends one message and waits until the kernel has carried it out.
    pub(crate) fn request(&self, message: Message) -> io::Result<()> {
        self.batch(vec![message])
    }

    /// Sends messages at once; each that has [`ACK`] is waited for. After an error the socket is of no more use.
    pub(crate) fn batch(&self, messages: Vec<Message>) -> io::Result<()> {
        let wants_ack = |m: &Message| u16::from_ne_bytes([m.0[6], m.0[7]]) & ACK != 0;
        let mut pending = messages.iter().filter(|m| wants_ack(m)).count();
        self.send(messages)?;
        for _ in 0..MAX_PACKETS {
            if pending == 0 {
                return Ok(());
            }
            for answer in self.receive()? {
                if answer.kind == ERROR {
                    check(&answer)?;
                    pending = pending.saturating_sub(1);
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Asks for one message or, with [`DUMP`], for a list.
    pub(crate) fn ask(&self, message: Message) -> io::Result<Vec<Answer>> {
        let dump = u16::from_ne_bytes([message.0[6], message.0[7]]) & DUMP == DUMP;
        self.send(vec![message])?;
        let mut out = Vec::new();
        for _ in 0..MAX_PACKETS {
            for answer in self.receive()?.into_iter().filter(|a| a.sequence == 1) {
                match answer.kind {
                    ERROR => check(&answer)?,
                    DONE => return Ok(out),
                    _ => out.push(answer),
                }
            }
            if !dump && !out.is_empty() {
                return Ok(out);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn send(&self, messages: Vec<Message>) -> io::Result<()> {
        let bytes: Vec<u8> = messages.into_iter().zip(1..).flat_map(|(m, sequence)| m.finish(sequence)).collect();
        let sent = rustix::net::send(&self.0, &bytes, SendFlags::empty())?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn receive(&self) -> io::Result<Vec<Answer>> {
        let mut buffer = vec![0; PACKET_BYTES];
        let (len, _) = rustix::io::retry_on_intr(|| rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::empty()))?;
        Ok(split(&buffer[..len]))
    }
}

/// An acknowledgement is an error of number 0.
fn check(answer: &Answer) -> io::Result<()> {
    match answer.payload.get(..4) {
        Some(&[a, b, c, d]) => match i32::from_ne_bytes([a, b, c, d]) {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(-errno)),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Takes a packet apart; stops at what isn't a message.
fn split(mut bytes: &[u8]) -> Vec<Answer> {
    let mut out = Vec::new();
    while bytes.len() >= HEADER {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let len = word(0) as usize;
        if len < HEADER || len > bytes.len() {
            break;
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        out.push(Answer { kind, sequence: word(8), payload: bytes[HEADER..len].to_vec() });
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    out
}

/// The attributes behind a fixed part of `skip` bytes; stops at what isn't one.
pub(crate) fn attributes(payload: &[u8], skip: usize) -> Vec<(u16, &[u8])> {
    let mut out = Vec::new();
    let mut bytes = payload.get(skip..).unwrap_or_default();
    while bytes.len() >= 4 {
        let len = usize::from(u16::from_ne_bytes([bytes[0], bytes[1]]));
        if len < 4 || len > bytes.len() {
            break;
        }
        out.push((u16::from_ne_bytes([bytes[2], bytes[3]]) & 0x3FFF, &bytes[4..len]));
        bytes = &bytes[len.next_multiple_of(4).min(bytes.len())..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_packets_are_cut_off_where_they_stop_making_sense() {
        for len in 0..64 {
            for fill in [0u8, 1, 16, 0xFF] {
                let bytes = vec![fill; len];
                split(&bytes);
                attributes(&bytes, 4);
            }
        }
        let good = Message::new(16, 0).text(3, "eth0").finish(7);
        let answers = split(&good);
        assert_eq!((answers.len(), answers[0].sequence), (1, 7));
        assert_eq!(attributes(&answers[0].payload, 0), [(3, &b"eth0\0"[..])]);
    }
}
