//! Calls of the Docker Engine API over a unix socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// Longest wait for one answer. An emulated machine is slow, and the clock of one whose instructions are counted leaps while
/// it waits for its disk.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Most bytes of an answer.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// An engine, by its socket.
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// The engine that listens there.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// A call that must succeed (status 2xx or 304); its answer's body.
    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Vec<u8>> {
        let text = body.map(Value::to_string).unwrap_or_default();
        self.send(method, path, "application/json", text.as_bytes())
    }

    /// A call whose answer is JSON.
    pub fn json(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let answer = self.call(method, path, body)?;
        serde_json::from_slice(&answer).with_context(|| format!("{method} {path} answered no JSON"))
    }

    /// A call with a body of another kind.
    pub fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<Vec<u8>> {
        let mut stream =
            UnixStream::connect(&self.socket).with_context(|| format!("connect to {}", self.socket.display()))?;
        stream.set_read_timeout(Some(LIMIT))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        // An engine that refuses a body may close before it has read it; why is in the answer then.
        let sent = stream.write_all(body);
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).with_context(|| format!("{method} {path}"))?;
        let Some((head, body)) = parse(&answer) else {
            sent.with_context(|| format!("{method} {path}: send the body"))?;
            bail!("{method} {path} answered no HTTP");
        };
        let status: u32 = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
        if !(200..300).contains(&status) && status != 304 {
            bail!("{method} {path} answered {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(body)
    }

    /// Makes a container; its ID.
    pub fn create(&self, image: &str, network: &str, command: &[&str]) -> Result<String> {
        let order = serde_json::json!({
            "Image": image, "Cmd": command, "HostConfig": { "NetworkMode": network },
        });
        id(&self.json("POST", "/v1.40/containers/create", Some(&order))?)
    }

    /// Starts a container.
    pub fn start(&self, id: &str) -> Result<()> {
        self.call("POST", &format!("/v1.40/containers/{id}/start"), None).map(drop)
    }

    /// Waits for a container's end, which must be a success.
    pub fn wait(&self, id: &str) -> Result<()> {
        let answer = self.json("POST", &format!("/v1.40/containers/{id}/wait"), None)?;
        ensure!(answer["StatusCode"] == 0, "the container ended with {}", answer["StatusCode"]);
        Ok(())
    }

    /// Removes a container, running or not.
    pub fn remove(&self, id: &str) -> Result<()> {
        self.call("DELETE", &format!("/v1.40/containers/{id}?force=true"), None).map(drop)
    }

    /// Runs a command in a container to its end, which must be a success.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<()> {
        let order = serde_json::json!({ "AttachStdout": true, "AttachStderr": true, "Cmd": command });
        let exec = id(&self.json("POST", &format!("/v1.40/containers/{container}/exec"), Some(&order))?)?;
        let start = serde_json::json!({ "Detach": false, "Tty": false });
        self.call("POST", &format!("/v1.40/exec/{exec}/start"), Some(&start))?;
        let state = self.json("GET", &format!("/v1.40/exec/{exec}/json"), None)?;
        ensure!(state["Running"] == false && state["ExitCode"] == 0, "the command left {state}");
        Ok(())
    }
}

fn id(answer: &Value) -> Result<String> {
    Ok(answer["Id"].as_str().with_context(|| format!("no Id in {answer}"))?.to_owned())
}

/// Head and body of an answer, whose end is that of the connection.
fn parse(answer: &[u8]) -> Option<(String, Vec<u8>)> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(answer.get(..end)?).into_owned();
    let body = answer.get(end + 4..)?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((head, if chunked { dechunk(body)? } else { body.to_vec() }))
}

/// The chunked transfer coding (RFC 9112, section 7.1), without trailers.
fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(rest.get(..end)?).ok()?.trim(), 16).ok()?;
        let start = end.checked_add(2)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(start..start.checked_add(size)?)?);
        rest = rest.get(start.checked_add(size)?.checked_add(2)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_whole_or_in_chunks() {
        let plain = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab").unwrap();
        assert_eq!((plain.0.starts_with("HTTP/1.1 200"), plain.1.as_slice()), (true, &b"ab"[..]));
        let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(parse(chunks).unwrap().1, b"abc");
        assert!(parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nab").is_none());
        assert!(parse(b"HTTP/1.1 200 OK\r\n").is_none());
    }
}
