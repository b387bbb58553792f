//! `docker` and `keelctl`, run on the workstation as an operator runs them: over mutual TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build::Build;
use crate::machine::{Machine, tail};

/// A Keel host as its operator sees it.
#[derive(Clone, Debug)]
pub struct Host {
    api_port: u16,
    certs: PathBuf,
    keelctl: PathBuf,
}

impl Host {
    /// The host in a machine.
    pub fn of(build: &Build, machine: &Machine) -> Result<Self> {
        Ok(Self { api_port: machine.port(2376)?, certs: build.certs(), keelctl: build.programs.join("keelctl") })
    }

    /// A `docker` command line.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = self.client("docker");
        command.args(arguments);
        command
    }

    /// Another client that takes what `docker` takes from its environment.
    pub fn client(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DOCKER_HOST", format!("tcp://{}", self.address()))
            .env("DOCKER_TLS_VERIFY", "1")
            .env("DOCKER_CERT_PATH", &self.certs)
            .env("DOCKER_CONFIG", self.certs.join("no-docker-config"))
            // Python's library for HTTP prefers what these name to the authority that its caller does.
            .env_remove("REQUESTS_CA_BUNDLE")
            .env_remove("CURL_CA_BUNDLE")
            .stdin(Stdio::null());
        command
    }

    /// Where its API is reached.
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.api_port).into()
    }

    /// Folder of its operator's certificates.
    pub fn certs(&self) -> &Path {
        &self.certs
    }

    /// Runs `docker`, which must succeed; returns what it printed, without the last line feed.
    pub fn docker_ok(&self, arguments: &[&str]) -> Result<String> {
        succeed("docker", arguments, self.docker(arguments).output())
    }

    /// A `keelctl` command line.
    pub fn keelctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.keelctl);
        command
            .args(["--host", &format!("tcp://{}", self.address()), "--cert-path"])
            .arg(&self.certs)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs `keelctl`, which must succeed; returns what it printed.
    pub fn keelctl_ok(&self, arguments: &[&str]) -> Result<String> {
        succeed("keelctl", arguments, self.keelctl(arguments).output())
    }

    /// Runs `keelctl --json`, which must succeed; returns the document.
    pub fn keelctl_json(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.keelctl_ok(&[&["--json"], arguments].concat())?;
        serde_json::from_str(&text).with_context(|| format!("keelctl --json {arguments:?} printed {text:?}"))
    }

    /// Runs `keelctl`, which must fail with `code`; returns its message.
    pub fn keelctl_fails(&self, arguments: &[&str], code: i32) -> Result<String> {
        let output = self.keelctl(arguments).output().context("run keelctl")?;
        let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(
            output.status.code() == Some(code),
            "keelctl {arguments:?} ended with {} instead of {code}: {message}",
            output.status
        );
        Ok(message)
    }

    /// `GET` of a path of the API that no client has a word for; returns the body.
    pub fn get(&self, path: &str) -> Result<String> {
        let file = |name: &str| self.certs.join(name);
        let mut client = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_quiet",
                "-verify_return_error",
                "-servername",
                "localhost",
                "-connect",
            ])
            .arg(self.address().to_string())
            .args(["-CAfile".into(), file("ca.pem"), "-cert".into(), file("cert.pem"), "-key".into(), file("key.pem")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run openssl: is the package openssl installed?")?;
        let mut stdin = client.stdin.take().context("openssl's input")?;
        write!(stdin, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let answer = String::from_utf8_lossy(&client.wait_with_output()?.stdout).into_owned();
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
            _ => bail!("GET {path} answered {answer:?}"),
        }
    }

    /// Waits until the host's API answers and its health is `health`.
    pub fn wait_health(&self, machine: &Machine, health: &str, limit: Duration) -> Result<Value> {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < limit {
            match self.keelctl_json(&["status"]) {
                Ok(status) if status["health"] == health => return Ok(status),
                Ok(status) => last = status.to_string(),
                Err(error) => last = format!("{error:#}"),
            }
            std::thread::sleep(Duration::from_millis(300));
        }
        let (console, processor) = (machine.console(), machine.whereabouts());
        bail!(
            "host isn't {health} after {limit:?}; last answer: {last}\nprocessor:\n{processor}\nconsole:\n{}",
            tail(&console)
        )
    }

    /// Starts an install and returns its progress, one JSON document a line.
    pub fn install(&self, version: Option<&str>) -> Result<Install> {
        let mut command = self.keelctl(&["--json", "update", "install"]);
        let mut child = command.args(version).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let lines = BufReader::new(child.stdout.take().context("keelctl's output")?);
        Ok(Install { child, lines })
    }
}

/// An install that is under way.
pub struct Install {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Install {
    /// The next event; `None` at the end.
    pub fn next_event(&mut self) -> Result<Option<Value>> {
        let mut line = String::new();
        if self.lines.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).with_context(|| format!("progress line {line:?}"))
    }

    /// Waits for the end, which must be a success.
    pub fn finish(mut self) -> Result<()> {
        while self.next_event()?.is_some() {}
        let mut message = String::new();
        if let Some(mut errors) = self.child.stderr.take() {
            errors.read_to_string(&mut message)?;
        }
        let status = self.child.wait()?;
        ensure!(status.success(), "keelctl update install ended with {status}: {message}");
        Ok(())
    }
}

impl Drop for Install {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `GET` of a page on the workstation's loopback; returns the body.
pub fn http_get(port: u16) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&([127, 0, 0, 1], port).into(), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.contains(" 200 ") => Ok(body.to_owned()),
        _ => bail!("GET on port {port} answered {answer:?}"),
    }
}

/// Asks for a page until it comes, within `limit`.
pub fn wait_http(port: u16, limit: Duration) -> Result<String> {
    let begun = Instant::now();
    loop {
        match http_get(port) {
            Ok(page) => return Ok(page),
            Err(error) if begun.elapsed() > limit => {
                return Err(error.context(format!("nothing served on port {port} for {limit:?}")));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// What a command printed that must succeed.
pub fn succeed(program: &str, arguments: &[&str], output: std::io::Result<Output>) -> Result<String> {
    let output = output.with_context(|| format!("run {program}"))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{program} {}: {}\n{printed}{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(printed.trim_end_matches('\n').to_owned())
}
