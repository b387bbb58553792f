//! A registry of our own that can be made to misbehave.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use keel_store::Digest;

/// What a client asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// What it gets.
#[derive(Clone, Debug, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The connection ends after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// Nothing more comes after so many bytes, for as long as the client waits.
    pub stall_after: Option<usize>,
}

impl Reply {
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self { status: 200, body: body.into(), ..Self::default() }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A server; it ends with the test program.
pub struct Server {
    pub address: String,
    pub asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// Answers each request with what `answer` says; it gets the number of requests of the same path before, too.
    pub fn start(answer: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let (log, answer) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (log, answer) = (log.clone(), answer.clone());
                thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        Self { address, asked }
    }

    /// How many requests had this in their path.
    pub fn count(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.path.contains(part)).count()
    }
}

fn serve(mut stream: TcpStream, log: &Mutex<Vec<Asked>>, answer: &dyn Fn(&Asked, usize) -> Reply) {
    while let Some(asked) = read(&mut stream) {
        let before = {
            let mut log = log.lock().unwrap();
            let before = log.iter().filter(|other| other.path == asked.path && other.method == asked.method).count();
            log.push(asked.clone());
            before
        };
        let reply = answer(&asked, before);
        let mut head = format!("HTTP/1.1 {} Told\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
        for (name, value) in &reply.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body = if asked.method == "HEAD" { &[] } else { &reply.body[..] };
        let end = reply.cut_after.or(reply.stall_after).unwrap_or(body.len()).min(body.len());
        if stream.write_all(format!("{head}\r\n").as_bytes()).and_then(|()| stream.write_all(&body[..end])).is_err() {
            return;
        }
        if reply.stall_after.is_some() {
            // Until the client has had enough and closes.
            let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
            let _ = stream.read(&mut [0]);
            return;
        }
        if reply.cut_after.is_some() {
            return;
        }
    }
}

fn read(stream: &mut TcpStream) -> Option<Asked> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(Asked { method, path, headers, body })
}

/// An image with one layer, as a registry holds it.
#[derive(Clone)]
pub struct Held {
    pub layer: Vec<u8>,
    pub config: Vec<u8>,
    pub manifest: Vec<u8>,
}

impl Held {
    /// Of a layer's archive, as it is.
    pub fn new(layer: Vec<u8>) -> Self {
        Self::compressed(layer.clone(), &layer)
    }

    /// Of a layer as it is sent, and its archive.
    pub fn compressed(layer: Vec<u8>, archive: &[u8]) -> Self {
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(archive)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"digest": Digest::of(&config), "size": config.len()},
            "layers": [{"digest": Digest::of(&layer), "size": layer.len()}],
        });
        Self { layer, config, manifest: manifest.to_string().into_bytes() }
    }

    /// What an honest registry says. Ranges are served.
    pub fn answer(&self, asked: &Asked) -> Reply {
        let blobs = [&self.layer, &self.config];
        if asked.path.contains("/manifests/") {
            return Reply::ok(self.manifest.clone());
        }
        let Some(blob) = blobs.iter().find(|blob| asked.path.ends_with(&Digest::of(blob).to_string())) else {
            return Reply::status(404);
        };
        let range = asked.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'));
        match range.and_then(|(start, _)| start.parse::<usize>().ok()) {
            None => Reply::ok(blob.to_vec()),
            Some(start) => Reply { status: 206, body: blob[start..].to_vec(), ..Reply::default() }
                .header("Content-Range", format!("bytes {start}-{}/{}", blob.len() - 1, blob.len())),
        }
    }

    /// The digest of the layer as it is sent.
    pub fn layer_digest(&self) -> String {
        Digest::of(&self.layer).to_string()
    }
}
