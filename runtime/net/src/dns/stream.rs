//! Questions over TCP: few, since only long answers need it. Each connection has a thread for its short life.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::forward::servers;
use super::wire::{self, Answer};
use super::zone::{Elsewhere, Zone};

/// Most connections at a time; others wait in the kernel's queue or are closed.
const MAX_CONNECTIONS: usize = 8;
/// Most questions of one connection.
const MAX_QUESTIONS: usize = 16;
/// Longest wait for the client's or a server's next bytes.
const PATIENCE: Duration = Duration::from_secs(3);
/// Stack of a connection's thread.
const STACK_BYTES: usize = 128 << 10;

/// The connections under way: each holds one.
#[derive(Default)]
pub(super) struct Streams(Arc<()>);

impl Streams {
    /// Takes a connection.
    pub(super) fn accept(&self, id: &str, listener: &TcpListener, zone: &Arc<Zone>) {
        let Ok((stream, _)) = listener.accept() else { return };
        if Arc::strong_count(&self.0) > MAX_CONNECTIONS {
            return;
        }
        let (held, id, zone) = (self.0.clone(), id.to_owned(), zone.clone());
        let thread = std::thread::Builder::new().name("names-tcp".into()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            // A client that stops talking sense is no fault of ours.
            let _ = serve(stream, &id, &zone);
            drop(held);
        });
        if let Err(e) = spawned {
            log::warn!("names of containers: no thread for a connection: {e}");
        }
    }
}

fn serve(mut stream: TcpStream, id: &str, zone: &Zone) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    limit(&stream)?;
    for _ in 0..MAX_QUESTIONS {
        let query = receive(&mut stream)?;
        let question = wire::question(&query).ok_or(io::ErrorKind::InvalidData)?;
        let answer = match zone.answer(id, &question) {
            Some(answer) => wire::reply(&query, &question, &answer),
            None => pass_on(&query, zone.elsewhere(id))
                .filter(|answer| wire::answers(&query, &question, answer))
                .unwrap_or_else(|| wire::reply(&query, &question, &Answer::Failed)),
        };
        send(&mut stream, &answer)?;
    }
    Ok(())
}

fn pass_on(query: &[u8], elsewhere: Elsewhere) -> Option<Vec<u8>> {
    let ask = |server: SocketAddr| -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&server, PATIENCE)?;
        limit(&stream)?;
        send(&mut stream, query)?;
        receive(&mut stream)
    };
    servers(elsewhere).into_iter().find_map(|server| ask(server).ok())
}

fn limit(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// A message with its length before it (RFC 1035, section 4.2.2).
fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut len = [0; 2];
    stream.read_exact(&mut len)?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    stream.read_exact(&mut message)?;
    Ok(message)
}

fn send(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&len.to_be_bytes()[..], message].concat())
}
