//! An HTTP proxy on loopback that knows one host by a name of its own: whoever asks for that has come through it.

use std::io::{BufRead, BufReader, Write as _, copy};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// The name by which this workstation's loopback is known here, and nowhere else (RFC 6761 section 6.4).
pub const ONLY_HERE: &str = "updates.invalid";

/// How long a connection may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// Most headers of a request.
const MAX_HEADERS: usize = 100;

/// A running proxy. Its thread ends with the process.
pub struct Proxy {
    port: u16,
    requests: Arc<AtomicU64>,
}

impl Proxy {
    /// Forwards requests without a body for `http://updates.invalid:PORT/`. Tunnels aren't opened, as most proxies don't
    /// to ports other than 443.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen on loopback")?;
        let port = listener.local_addr()?.port();
        let requests: Arc<AtomicU64> = Arc::default();
        let counter = requests.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let counter = counter.clone();
                std::thread::spawn(move || serve(connection, &counter));
            }
        });
        Ok(Self { port, requests })
    }

    /// Port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Requests that were forwarded so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Serves one connection.
fn serve(client: TcpStream, counter: &AtomicU64) -> Result<()> {
    client.set_read_timeout(Some(SILENCE))?;
    let mut reader = BufReader::new(client.try_clone()?);
    let mut server: Option<(u16, TcpStream)> = None;
    while let Some((port, head)) = next_request(&mut reader, &client)? {
        let mut upstream = match &server {
            Some((known, stream)) if *known == port => stream.try_clone()?,
            _ => connect(port, &client)?,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        upstream.write_all(head.as_bytes())?;
        server = Some((port, upstream));
    }
    Ok(())
}

/// A connection to a port here, whose answers go to the client.
fn connect(port: u16, client: &TcpStream) -> Result<TcpStream> {
    let server = TcpStream::connect(("127.0.0.1", port))?;
    server.set_read_timeout(Some(SILENCE))?;
    let (mut answers, mut client) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || {
        let _ = copy(&mut answers, &mut client);
        let _ = client.shutdown(Shutdown::Both);
    });
    Ok(server)
}

/// Reads the head of a request; returns the port that it is for, and the head as the server there wants it. `None` at the
/// end of the connection.
fn next_request(reader: &mut impl BufRead, mut client: &TcpStream) -> Result<Option<(u16, String)>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let (port, mut head) = match origin_form(&line) {
        Ok(known) => known,
        Err(error) => {
            write!(client, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
            return Err(error);
        }
    };
    for _ in 0..MAX_HEADERS {
        let begin = head.len();
        ensure!(reader.read_line(&mut head)? > 0, "the request ended in its headers");
        if &head[begin..] == "\r\n" {
            return Ok(Some((port, head)));
        }
    }
    bail!("more than {MAX_HEADERS} headers")
}

/// The port of a request line `GET http://updates.invalid:PORT/PATH HTTP/1.1`, and the line as servers know it (RFC 9112
/// section 3.2.1).
fn origin_form(line: &str) -> Result<(u16, String)> {
    let rest = line.strip_prefix("GET http://").and_then(|rest| rest.strip_prefix(ONLY_HERE));
    let rest = rest.and_then(|rest| rest.strip_prefix(':')).with_context(|| format!("not for this proxy: {line:?}"))?;
    let (port, path) = rest.split_once('/').context("a path")?;
    Ok((port.parse().context("port")?, format!("GET /{path}")))
}
