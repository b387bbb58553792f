//! `run`: a container, from its image to its exit code.
//!
//! The order matters: attach, then wait, then start, each answered before the next; so neither the first byte nor
//! the end of a short-lived container is missed.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use keel_spec::api::ErrorCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cli::Run;
use crate::client::{Client, encode, parse};
use crate::error::{Failure, Result};
use crate::progress::Progress;

/// Longest frame that is taken: the server sends far less.
const MAX_FRAME_BYTES: u32 = 1 << 20;

/// `keelctl run`. In the foreground the exit code is the container's.
pub fn run(client: &Client, run: &Run, json: bool) -> Result<u8> {
    let id = create(client, run)?;
    let id_path = format!("/containers/{id}");
    if run.detach {
        client.request("POST", &format!("{id_path}/start"), b"")?;
        println!("{}", if json { json!({ "Id": id }).to_string() } else { id });
        return Ok(0);
    }
    let output = client.stream("POST", &format!("{id_path}/attach?stdout=1&stderr=1&stream=1"), b"")?;
    let condition = if run.remove { "removed" } else { "next-exit" };
    let waiting = client.stream("POST", &format!("{id_path}/wait?condition={condition}"), b"")?;
    if let Err(failure) = client.request("POST", &format!("{id_path}/start"), b"") {
        // What could not start is of no use; the start's own failure is what counts.
        let _ = client.request("DELETE", &format!("{id_path}?force=1"), b"");
        return Err(failure);
    }
    copy_frames(output, &mut io::stdout(), &mut io::stderr())
        .map_err(|error| Failure::unavailable(format!("lost the container's output: {error}; it may still run")))?;
    let code = exit_code(waiting)?;
    if json {
        println!("{}", json!({ "Id": id, "StatusCode": code }));
    }
    Ok(u8::try_from(code.clamp(0, 255)).unwrap_or(u8::MAX))
}

fn create(client: &Client, run: &Run) -> Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created {
        id: String,
        #[serde(default)]
        warnings: Option<Vec<String>>,
    }
    let path = match &run.name {
        Some(name) => format!("/containers/create?name={}", encode(name)),
        None => "/containers/create".to_owned(),
    };
    let body = body(run).to_string();
    let answer = match client.request("POST", &path, body.as_bytes()) {
        Err(failure) if failure.code == ErrorCode::NotFound => {
            pull(client, &run.image)?;
            client.request("POST", &path, body.as_bytes())?
        }
        answer => answer?,
    };
    let created: Created = parse(&answer)?;
    for warning in created.warnings.iter().flatten() {
        eprintln!("keelctl: {warning}");
    }
    Ok(created.id)
}

/// What the Docker Engine API wants to know.
fn body(run: &Run) -> Value {
    let mut exposed = Map::new();
    let mut bindings: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for port in &run.ports {
        exposed.insert(port.container.clone(), json!({}));
        let binding = json!({ "HostIp": port.host_ip, "HostPort": port.host_port });
        bindings.entry(port.container.clone()).or_default().push(binding);
    }
    let (policy, retries) = run.restart.clone().unwrap_or(("no".into(), 0));
    let mut body = json!({
        "Image": run.image,
        "Env": run.env,
        "AttachStdout": !run.detach, "AttachStderr": !run.detach,
        "ExposedPorts": exposed,
        "HostConfig": {
            "AutoRemove": run.remove,
            "PortBindings": bindings,
            "RestartPolicy": { "Name": policy, "MaximumRetryCount": retries },
        },
    });
    if !run.command.is_empty() {
        body["Cmd"] = json!(run.command);
    }
    body
}

fn pull(client: &Client, image: &str) -> Result<()> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Line {
        status: String,
        error: Option<String>,
        progress_detail: Detail,
    }
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Detail {
        current: u64,
        total: u64,
    }
    eprintln!("pulling {image}: it is not on the host yet");
    let mut progress = Progress::new();
    let (name, tag) = split_tag(image);
    let path = format!("/images/create?fromImage={}&tag={}", encode(name), encode(tag));
    client.lines("POST", &path, b"", |line| {
        let line: Line = parse(line)?;
        if let Some(error) = line.error {
            return Err(Failure::new(ErrorCode::Network, format!("pulling {image} failed: {error}")));
        }
        if line.progress_detail.total > 0 {
            progress.step(&line.status, line.progress_detail.current, line.progress_detail.total);
        }
        Ok(())
    })?;
    progress.finish();
    Ok(())
}

/// A name without a tag or digest would mean all tags to older servers.
fn split_tag(image: &str) -> (&str, &str) {
    if let Some((name, digest)) = image.split_once('@') {
        return (name, digest);
    }
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (image, "latest"),
    }
}

/// Parts the framed stream: a byte for the stream, three zeros, the length in four bytes, the data.
fn copy_frames(mut input: impl Read, stdout: &mut impl Write, stderr: &mut impl Write) -> io::Result<()> {
    loop {
        let mut head = [0; 8];
        match input.read(head.get_mut(..1).unwrap_or_default())? {
            0 => return Ok(()),
            _ => input.read_exact(head.get_mut(1..).unwrap_or_default())?,
        }
        let [stream, _, _, _, a, b, c, d] = head;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > MAX_FRAME_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is longer than any server sends"));
        }
        let mut data = (&mut input).take(u64::from(length));
        let copied = match stream {
            2 => io::copy(&mut data, stderr)?,
            _ => io::copy(&mut data, stdout)?,
        };
        if copied < u64::from(length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        stdout.flush()?;
    }
}

fn exit_code(mut waiting: impl Read) -> Result<i64> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Waited {
        status_code: i64,
        #[serde(default)]
        error: Option<WaitError>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct WaitError {
        message: Option<String>,
    }
    let mut text = String::new();
    waiting
        .by_ref()
        .take(1 << 16)
        .read_to_string(&mut text)
        .map_err(|error| Failure::unavailable(format!("lost the wait for the container: {error}; it may still run")))?;
    let waited: Waited = parse(&text)?;
    match waited.error.and_then(|error| error.message) {
        Some(message) => Err(Failure::new(ErrorCode::Internal, message)),
        None => Ok(waited.status_code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Port;

    #[test]
    fn frames_are_parted() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        copy_frames(&b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x01!"[..], &mut out, &mut err).unwrap();
        assert_eq!((&out[..], &err[..]), (&b"hi"[..], &b"!"[..]));
        for cut in [&b"\x01\0\0"[..], b"\x01\0\0\0\0\0\0\x05hi", b"\x01\0\0\0\xff\xff\xff\xffhi"] {
            assert!(copy_frames(cut, &mut out, &mut err).is_err());
        }
    }

    #[test]
    fn the_request_has_dockers_shape() {
        let run = Run {
            ports: vec![Port { host_ip: String::new(), host_port: "8080".into(), container: "80/tcp".into() }],
            restart: Some(("on-failure".into(), 3)),
            image: "nginx".into(),
            ..Run::default()
        };
        let body = body(&run);
        assert_eq!(body["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
        assert_eq!(body["HostConfig"]["RestartPolicy"], json!({ "Name": "on-failure", "MaximumRetryCount": 3 }));
        assert_eq!(body.get("Cmd"), None);
    }

    #[test]
    fn an_image_without_a_tag_means_latest() {
        assert_eq!(split_tag("localhost:5000/a"), ("localhost:5000/a", "latest"));
        assert_eq!(split_tag("a:1"), ("a", "1"));
        assert_eq!(split_tag("a@sha256:00"), ("a", "sha256:00"));
    }
}
