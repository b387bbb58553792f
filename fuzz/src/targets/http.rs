//! Answers of web servers, and their ranges.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::mpsc;
use std::time::Duration;

use keel_fetch::multipart::{Multipart, boundary};
use keel_fetch::{Client, Options, Request, range};

use super::answer;
use crate::runner::{Run, Target};

pub const TARGETS: [Target; 3] = [
    Target { name: "http_range", seeds: range_seeds, make: || Box::new(content_range), share: 1000 },
    Target { name: "http_ranges", seeds: ranges_seeds, make: || Box::new(ranges), share: 1000 },
    Target { name: "http_answer", seeds: answer_seeds, make: http_answer, share: 50 },
];

const ASKED: std::ops::Range<u64> = 10..20;

fn range_seeds() -> Vec<Vec<u8>> {
    ["bytes 10-19/100", "bytes 10-19/*", "bytes 10-14/15", "bytes */100"].map(|text| text.as_bytes().to_vec()).to_vec()
}

fn content_range(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".into() };
    let outcome = range::check(&ASKED, text, Some(10));
    assert!(outcome.is_err() || text.contains("10-19"), "another range is accepted");
    answer(outcome)
}

/// A `Content-Type`, then the body that came with it.
fn ranges_seeds() -> Vec<Vec<u8>> {
    [
        "multipart/byteranges; boundary=x\r\n--x\r\nContent-Range: bytes 0-2/99\r\n\r\nabc\r\n--x\r\n\
         content-range: bytes 5-6/99\r\n\r\nfg\r\n--x--\r\n",
        "Multipart/ByteRanges; a=b; boundary=\"a b\"\n\r\n--a b\nContent-Range: bytes 0-2/*\n\nabc\n--a b--\n",
        "text/html; charset=utf-8\n<html>",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn ranges(bytes: &[u8]) -> String {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (kind, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let Some(boundary) = boundary(String::from_utf8_lossy(kind).trim_end()) else { return "one range".into() };
    let mut read = Vec::new();
    let outcome = Multipart::new(body, &boundary, &[0..3, 5..7]).read_to_end(&mut read);
    assert!(read.len() <= 5, "more than was asked for");
    assert!(outcome.is_err() || read.len() == 5, "less than was asked for, and no error");
    answer(outcome)
}

fn answer_seeds() -> Vec<Vec<u8>> {
    [
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-19/100\r\nContent-Length: 10\r\n\r\n0123456789",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n",
        "HTTP/1.0 404 Not Found\r\n\r\n<html>",
        "HTTP/1.1 302 Found\r\nLocation: /next\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// The client against a server that answers with the input, whatever is asked.
fn http_answer() -> Run {
    let made = || -> anyhow::Result<_> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/file", listener.local_addr()?);
        let options = Options { idle_timeout: Duration::from_secs(5), ..Options::default() };
        Ok((listener, url, Client::new(options)?))
    };
    let (listener, url, client) = made().unwrap_or_else(|error| panic!("serve on loopback: {error:#}"));
    let (sender, inputs) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn(move || {
        let mut current = Vec::new();
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            while let Ok(next) = inputs.try_recv() {
                current = next;
            }
            let mut request = [0; 4096];
            // What fails here is the client's affair.
            let _ = stream.read(&mut request).and_then(|_| stream.write_all(&current));
            let _ = stream.shutdown(Shutdown::Write);
        }
    });
    Box::new(move |bytes| {
        // The answer to this input must not come from a connection that waits for the next request.
        let fresh = format!("{url}?{}", bytes.len());
        if sender.send(bytes.to_vec()).is_err() {
            return "no server".into();
        }
        let request = Request::new(&fresh, 1000).range(ASKED);
        let mut body = Vec::new();
        match client.get(&request) {
            Err(error) => error.to_string().rsplit(": ").next().unwrap_or_default().into(),
            Ok(response) => {
                let status = response.status;
                let outcome = response.body.take(2000).read_to_end(&mut body);
                assert!(body.len() <= 1000, "more bytes than the caller's cap");
                format!("status {}xx {}", status / 100, answer(outcome))
            }
        }
    })
}
