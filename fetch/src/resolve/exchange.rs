//! One name server asked, over UDP and, for answers that don't fit, TCP (RFC 7766).

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::wire::{Answer, Kind, Name, Question, Reply};

/// Datagrams looked at for one lookup; more means that someone is guessing.
const MAX_DATAGRAMS: usize = 64;
/// Longest datagram: we don't offer EDNS, so 512 by the book; some send more all the same.
const MAX_DATAGRAM_BYTES: usize = 4096;
/// How long the IPv6 answer may lag behind a good IPv4 one (RFC 8305 section 3).
const LAG: Duration = Duration::from_millis(50);

/// Asks for both kinds of address at once. An error says what this server did wrong.
pub fn ask(server: SocketAddr, name: &Name, timeout: Duration) -> Result<Answer, String> {
    let mut deadline = Instant::now() + timeout;
    let local: SocketAddr =
        if server.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    // A connected socket on a port of the kernel's choice takes datagrams from this server only.
    let socket = UdpSocket::bind(local).map_err(|error| error.to_string())?;
    socket.connect(server).map_err(|error| error.to_string())?;
    let questions = [Question::new(name, Kind::V4), Question::new(name, Kind::V6)];
    for question in &questions {
        socket.send(&question.bytes()?).map_err(|error| error.to_string())?;
    }
    let mut replies: [Option<Result<Answer, String>>; 2] = [None, None];
    let mut buffer = [0; MAX_DATAGRAM_BYTES];
    for _ in 0..MAX_DATAGRAMS {
        if replies.iter().all(Option::is_some) {
            break;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left)).map_err(|error| error.to_string())?;
        let bytes = match socket.recv(&mut buffer) {
            Ok(count) => buffer.get(..count).unwrap_or_default(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.to_string()),
        };
        for (question, reply) in questions.iter().zip(replies.iter_mut()).filter(|(_, reply)| reply.is_none()) {
            match question.read(bytes) {
                Reply::Stray => continue,
                Reply::Answer(answer) => *reply = Some(Ok(answer)),
                Reply::Refused(reason) => *reply = Some(Err(reason)),
                Reply::Truncated => *reply = Some(ask_tcp(server, question, deadline)),
            }
        }
        if matches!(replies, [Some(Ok(Answer::Found { .. })), None]) {
            deadline = deadline.min(Instant::now() + LAG);
        }
    }
    merge(replies, timeout)
}

/// Both answers as one. An IPv4 answer alone will do; without one, silence about IPv6 is a failure.
fn merge(replies: [Option<Result<Answer, String>>; 2], timeout: Duration) -> Result<Answer, String> {
    let mut found = Vec::new();
    let mut least_ttl = Duration::MAX;
    let mut failure = None;
    let mut nothing = None;
    for reply in replies {
        match reply {
            Some(Ok(Answer::Found { addresses, ttl })) => {
                found.extend(addresses);
                least_ttl = least_ttl.min(ttl);
            }
            Some(Ok(answer)) => nothing = Some(answer),
            Some(Err(reason)) => failure = Some(reason),
            None => failure = Some(failure.unwrap_or_else(|| format!("no answer within {timeout:?}"))),
        }
    }
    found.truncate(super::MAX_ADDRESSES);
    match (found.is_empty(), failure, nothing) {
        (false, _, _) => Ok(Answer::Found { addresses: found, ttl: least_ttl }),
        (true, Some(reason), _) => Err(reason),
        (true, None, Some(answer)) => Ok(answer),
        (true, None, None) => Err("no answer".into()),
    }
}

fn ask_tcp(server: SocketAddr, question: &Question, deadline: Instant) -> Result<Answer, String> {
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err("no answer over TCP in time".to_owned()) } else { Ok(left) }
    };
    let over = |error: std::io::Error| format!("over TCP: {error}");
    let mut stream = TcpStream::connect_timeout(&server, left()?).map_err(over)?;
    let bytes = question.bytes()?;
    let length = u16::try_from(bytes.len()).map_err(|_| "question too long".to_owned())?;
    stream.set_write_timeout(Some(left()?)).map_err(over)?;
    stream.write_all(&[&length.to_be_bytes()[..], &bytes].concat()).map_err(over)?;
    let mut reply = Vec::new();
    // 2 bytes of length, then at most 65535: the loop ends by the deadline at the latest.
    let mut wanted = 2;
    while reply.len() < wanted {
        let mut part = [0; 4096];
        stream.set_read_timeout(Some(left()?)).map_err(over)?;
        let room = part.len().min(wanted - reply.len());
        match stream.read(part.get_mut(..room).unwrap_or_default()).map_err(over)? {
            0 => return Err("closed the TCP connection in the middle of its answer".into()),
            count => reply.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
        if let ([high, low], 2) = (reply.as_slice(), wanted) {
            wanted += usize::from(u16::from_be_bytes([*high, *low]));
        }
    }
    match question.read(reply.get(2..).unwrap_or_default()) {
        Reply::Answer(answer) => Ok(answer),
        Reply::Refused(reason) => Err(reason),
        Reply::Stray | Reply::Truncated => Err("sent an unusable answer over TCP".into()),
    }
}
