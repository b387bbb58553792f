//! A little FleetLock server on loopback that can fail in all the ways that servers do. It takes outcomes, too.

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It doesn't.
    None,
    /// Nothing is done; this is the answer.
    Status(u16),
    /// Nothing is done; the connection is closed.
    Cut,
    /// It is done, and the connection closed without an answer.
    DoneButCut,
    /// Nothing is done, and nothing is said.
    Hang,
    /// A refusal, byte by byte.
    Trickle,
    /// Something that isn't HTTP.
    Garbage,
}

#[derive(Default)]
struct Shared {
    holders: BTreeMap<String, String>,
    faults: VecDeque<Fault>,
    outcomes: Vec<serde_json::Value>,
    paths: Vec<String>,
}

/// The server; its threads end with the test's process.
pub struct LockServer {
    /// Its base address.
    pub url: String,
    shared: Arc<Mutex<Shared>>,
}

impl LockServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::<Mutex<Shared>>::default();
        let server = Self { url, shared: Arc::clone(&shared) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || answer(stream, &shared));
            }
        });
        server
    }

    /// The next requests go wrong so.
    pub fn fail(&self, faults: Vec<Fault>) {
        self.shared.lock().unwrap().faults = faults.into();
    }

    /// Gives a group's lock to a host.
    pub fn hold(&self, group: &str, host: &str) {
        self.shared.lock().unwrap().holders.insert(group.into(), host.into());
    }

    pub fn release(&self, group: &str) {
        self.shared.lock().unwrap().holders.remove(group);
    }

    pub fn holds(&self, group: &str, host: &str) -> bool {
        self.shared.lock().unwrap().holders.get(group).is_some_and(|holder| holder == host)
    }

    pub fn held(&self) -> usize {
        self.shared.lock().unwrap().holders.len()
    }

    pub fn outcomes(&self) -> Vec<serde_json::Value> {
        self.shared.lock().unwrap().outcomes.clone()
    }

    /// What was asked for, in order.
    pub fn paths(&self) -> Vec<String> {
        self.shared.lock().unwrap().paths.clone()
    }
}

/// One request on a connection.
fn answer(mut stream: TcpStream, shared: &Mutex<Shared>) {
    let Some((head, body)) = read(&mut stream) else { return };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let fault = {
        let mut shared = shared.lock().unwrap();
        shared.paths.push(path.clone());
        shared.faults.pop_front().unwrap_or(Fault::None)
    };
    let (status, text) = match fault {
        Fault::None | Fault::DoneButCut => carry_out(&path, &head, &body, &mut shared.lock().unwrap()),
        Fault::Status(status) => (status, "{}".into()),
        Fault::Cut => return,
        Fault::Garbage => {
            let _ = stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n");
            return;
        }
        Fault::Hang => return std::thread::sleep(Duration::from_secs(60)),
        Fault::Trickle => {
            let _ = stream.write_all(b"HTTP/1.1 409 Conflict\r\nContent-Length: 4000\r\n\r\n");
            // Until the client has had enough.
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(100));
            }
            return;
        }
    };
    if fault == Fault::DoneButCut {
        return;
    }
    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len());
    // A client that hung up is none of this thread's business.
    let _ = stream.write_all(head.as_bytes());
}

fn carry_out(path: &str, head: &str, body: &[u8], shared: &mut Shared) -> (u16, String) {
    let json: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    if path == "/outcomes" {
        shared.outcomes.push(json);
        return (204, String::new());
    }
    if !head.to_ascii_lowercase().contains("\r\nfleet-lock-protocol: true\r\n") {
        return (400, r#"{"kind":"bad_header","value":"no fleet-lock-protocol"}"#.into());
    }
    let parameter = |name: &str| json["client_params"][name].as_str().map(str::to_owned);
    let (Some(id), Some(group)) = (parameter("id"), parameter("group")) else {
        return (400, r#"{"kind":"bad_params","value":"no id or group"}"#.into());
    };
    match path {
        "/v1/pre-reboot" => match shared.holders.entry(group).or_insert_with(|| id.clone()) {
            holder if *holder == id => (200, String::new()),
            _ => (409, r#"{"kind":"failed_lock","value":"taken\u001b[2J"}"#.into()),
        },
        "/v1/steady-state" => {
            shared.holders.retain(|known, holder| *known != group || *holder != id);
            (200, String::new())
        }
        _ => (404, String::new()),
    }
}

fn read(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let (mut request, mut byte) = (Vec::new(), [0]);
    while !request.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        request.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}
