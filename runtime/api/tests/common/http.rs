//! The API as bytes on its socket, for what no client sends.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// What a failure says.
    pub fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }
}

/// Method, path, body; status, and a part of the message (empty: none is looked for).
pub type Row = (&'static str, &'static str, &'static str, u16, &'static str);

/// The API's socket.
#[derive(Clone)]
pub struct Api(pub PathBuf);

impl Api {
    pub fn new(socket: &Path) -> Self {
        Self(socket.to_owned())
    }

    /// One request on a connection of its own; an error when the daemon goes away over it.
    pub fn try_call(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: keel\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        self.raw(head.as_bytes())
    }

    pub fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        self.try_call(method, path, body).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// What is answered otherwise than these say.
    pub fn differences(&self, table: &[Row]) -> Vec<String> {
        let different = |(method, path, body, status, words): &Row| {
            let answer = self.call(method, path, body);
            let message = if answer.status == 304 { String::new() } else { answer.message() };
            let have = answer.status;
            (have != *status || !message.contains(words))
                .then(|| format!("{method} {path} {body}\n  want {status} {words:?}\n  have {have} {message:?}"))
        };
        table.iter().filter_map(different).collect()
    }

    /// Sends bytes as they are.
    pub fn raw(&self, bytes: &[u8]) -> std::io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(bytes)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "the answer is cut off");
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(cut)?;
        let (head, body) = (String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase(), &answer[end + 4..]);
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(cut)?;
        let body = if head.contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok());
        // A daemon that is killed may leave half an answer.
        if length.is_some_and(|length| body.len() < length) {
            return Err(cut());
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

fn unchunk(body: &[u8]) -> Vec<u8> {
    let (mut whole, mut rest) = (Vec::new(), body);
    while let Some(end) = rest.windows(2).position(|window| window == b"\r\n") {
        let length =
            std::str::from_utf8(&rest[..end]).ok().and_then(|text| usize::from_str_radix(text.trim(), 16).ok());
        let (Some(length @ 1..), after) = (length, &rest[end + 2..]) else { break };
        whole.extend(after.get(..length).unwrap_or(after));
        rest = after.get(length + 2..).unwrap_or_default();
    }
    whole
}

/// Serves one file on loopback to whoever asks for a path that begins so, and 404 to others; returns its address.
pub fn serve(path: &'static str, content: Vec<u8>) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let count = stream.read(&mut request).unwrap_or(0);
            let found = request[..count].starts_with(format!("GET {path}").as_bytes());
            let (status, body) = if found { ("200 OK", &content[..]) } else { ("404 Not Found", &b"nothing"[..]) };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        }
    });
    address.to_string()
}
