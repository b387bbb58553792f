//! The HTTP server: a thread for each connection, one request a connection.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What is done in the place of an answer; it gets the path and what would have been the answer.
pub type Misbehaviour = Arc<dyn Fn(&mut TcpStream, &str, Option<Vec<u8>>) + Send + Sync>;

#[derive(Default)]
struct Served {
    files: BTreeMap<String, Vec<u8>>,
    misbehaviours: BTreeMap<String, Misbehaviour>,
    requests: Vec<String>,
}

/// A server on loopback; its threads end with the test's process.
pub struct Server {
    served: Arc<Mutex<Served>>,
    port: u16,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = Arc::new(Mutex::new(Served::default()));
        let shared = Arc::clone(&served);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (shared, stream) = (Arc::clone(&shared), stream.unwrap());
                std::thread::spawn(move || answer(&shared, stream));
            }
        });
        Self { served, port }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn put(&self, path: &str, content: Vec<u8>) {
        self.served.lock().unwrap().files.insert(path.into(), content);
    }

    pub fn get(&self, path: &str) -> Vec<u8> {
        self.served.lock().unwrap().files[path].clone()
    }

    pub fn remove(&self, path: &str) {
        self.served.lock().unwrap().files.remove(path).expect("it was served");
    }

    /// Misbehaves for one path, until [`Server::behave`].
    pub fn misbehave(&self, path: &str, how: Misbehaviour) {
        self.served.lock().unwrap().misbehaviours.insert(path.into(), how);
    }

    pub fn behave(&self) {
        self.served.lock().unwrap().misbehaviours.clear();
    }

    /// The paths that were asked for since this was called last.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.served.lock().unwrap().requests)
    }
}

fn answer(shared: &Mutex<Served>, mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
        request.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let path = text.split(' ').nth(1).unwrap_or("/").trim_start_matches('/').to_owned();
    let (content, misbehaviour) = {
        let mut served = shared.lock().unwrap();
        served.requests.push(path.clone());
        (served.files.get(&path).cloned(), served.misbehaviours.get(&path).cloned())
    };
    if let Some(misbehave) = misbehaviour {
        return misbehave(&mut stream, &text, content);
    }
    // A client that hangs up in the middle is none of this thread's business.
    let _ = match content {
        Some(content) => respond(&mut stream, "200 OK", "", &content),
        None => respond(&mut stream, "404 Not Found", "", b"<html>no such page</html>"),
    };
}

/// One whole answer.
pub fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)
}
