//! What a person does with containers at a terminal, and streams that go on: `run -it`, `attach`, `exec -it`, followed
//! logs, statistics and events.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::fixture::wait;
use super::verbs::{prints, until};
use crate::clients::Host;

/// Longest wait for what a terminal or a stream should show.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes read at a time.
const PIECE_BYTES: usize = 4096;

/// Terminals: their size, what is typed, leaving them.
pub(super) fn terminals(host: &Host, web: &str) -> Result<()> {
    let mut shell = Terminal::start(host, (33, 77), &["run", "-it", "--rm", "--name", "seen", web, "sh"])?;
    shell.answers("busybox stty size", "33 77")?;
    // The client hears of sizes only when it has told the first one, and the new one arrives some time after that.
    wait(LIMIT, || {
        shell.resize(40, 100)?;
        let size = host.docker_ok(&["exec", "seen", "busybox", "stty", "-F", "/dev/console", "size"])?;
        Ok(if size.trim() == "40 100" { Ok(()) } else { Err(format!("the terminal's size is {size}")) })
    })?;
    shell.enter("exit 5")?;
    ensure!(shell.end()?.code() == Some(5), "the shell's exit code");

    host.docker_ok(&["run", "-itd", "--name", "tty", web, "sh"])?;
    let mut attached = Terminal::start(host, (24, 80), &["attach", "--detach-keys", "ctrl-x,x", "tty"])?;
    attached.answers("echo $((40 + 2))", "42")?;
    attached.write(b"\x18x")?;
    attached.end()?;
    prints(host, &["inspect", "-f", "{{.State.Running}}", "tty"], "true")?;
    let mut second =
        Terminal::start(host, (24, 80), &["exec", "-it", "tty", "sh", "-c", "read a; echo got $a; exit 6"])?;
    second.answers("word", "got word")?;
    ensure!(second.end()?.code() == Some(6), "the exit code of `exec -it`");
    let started = || host.docker_ok(&["inspect", "-f", "{{.State.StartedAt}}", "tty"]);
    let before = started()?;
    host.docker_ok(&["restart", "-t", "1", "tty"])?;
    ensure!(started()? != before, "docker restart");
    host.docker_ok(&["exec", "-d", "tty", "touch", "/tmp/detached"])?;
    until(host, &["exec", "tty", "sh", "-c", "test -e /tmp/detached && echo there || true"], "there")?;
    let mut client = host.docker(&["exec", "-i", "tty", "cat"]);
    let mut client = client.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("run docker exec")?;
    client.stdin.take().context("its input")?.write_all(b"piped through\n")?;
    let output = client.wait_with_output()?;
    ensure!(output.stdout == b"piped through\n", "docker exec -i: {:?}", String::from_utf8_lossy(&output.stdout));
    host.docker_ok(&["rm", "-f", "tty"]).map(drop)
}

/// Streams that go on until the client leaves, and logs by time.
pub(super) fn streams(host: &Host, web: &str) -> Result<()> {
    let script = "i=0; while [ $i -lt 5 ]; do echo tick $i; i=$((i + 1)); sleep 0.3; done";
    let mut events = Stream::start(host, &["events", "--filter", "container=ticks", "--format", "{{.Action}}"])?;
    host.docker_ok(&["run", "-d", "--name", "ticks", web, "sh", "-c", script])?;
    for action in ["create", "start"] {
        events.wait_for(action)?;
    }
    prints(host, &["logs", "-f", "ticks"], "tick 0\ntick 1\ntick 2\ntick 3\ntick 4")?;
    events.wait_for("die")?;
    prints(host, &["logs", "--since", "2001-01-01T00:00:00Z", "--tail", "1", "ticks"], "tick 4")?;
    prints(host, &["logs", "--until", "2001-01-01T00:00:00Z", "ticks"], "")?;
    host.docker_ok(&["run", "-d", "--name", "busy", web])?;
    let mut statistics = Stream::start(host, &["stats", "--format", "{{.Name}};", "busy"])?;
    for _ in 0..2 {
        statistics.wait_for("busy;")?;
    }
    host.docker_ok(&["rm", "-f", "busy", "ticks"])?;
    host.docker_ok(&["network", "create", "unused"])?;
    ensure!(host.docker_ok(&["network", "prune", "-f"])?.contains("unused"), "docker network prune");
    ensure!(host.docker_ok(&["system", "prune", "-f"])?.contains("Total reclaimed space"), "docker system prune");
    Ok(())
}

/// A `docker` at a terminal of its own.
struct Terminal {
    stream: Stream,
    master: File,
}

impl Terminal {
    /// A client that finds a terminal of this many rows and columns.
    fn start(host: &Host, (rows, columns): (u16, u16), words: &[&str]) -> Result<Self> {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("open a terminal")?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?.into_string()?;
        size(&master, rows, columns)?;
        let slave = || File::options().read(true).write(true).open(&name).context("open the terminal");
        let mut command = host.docker(words);
        let client = command.stdin(slave()?).stdout(slave()?).stderr(slave()?).spawn().context("run docker")?;
        drop(command);
        let master = File::from(master);
        Ok(Self { stream: Stream::of(client, master.try_clone()?), master })
    }

    fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        size(&self.master, rows, columns)?;
        // The kernel tells a terminal's foreground processes alone, which the client isn't.
        let pid = Pid::from_raw(self.stream.client.id().try_into()?).context("the client's process ID")?;
        Ok(kill_process(pid, Signal::WINCH)?)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.master.write_all(bytes)?)
    }

    fn enter(&mut self, line: &str) -> Result<()> {
        self.write(format!("{line}\n").as_bytes())
    }

    /// Types a line, until a line of this is shown. Typed again where it was lost: the client may not listen yet.
    fn answers(&mut self, line: &str, wanted: &str) -> Result<()> {
        let begun = Instant::now();
        let mut typed = None;
        while !self.stream.seen.lines().any(|shown| shown.trim() == wanted) {
            ensure!(begun.elapsed() < LIMIT, "{line:?} shows {:?}, not {wanted:?}", self.stream.seen);
            // Nothing at all: no echo, no prompt.
            if typed.is_none_or(|at: Instant| at.elapsed() > LIMIT / 4) {
                self.enter(line)?;
                typed = Some(Instant::now());
            }
            self.stream.listen();
        }
        Ok(())
    }

    fn end(mut self) -> Result<ExitStatus> {
        wait(LIMIT, || Ok(self.stream.client.try_wait()?.ok_or_else(|| "docker doesn't end".to_owned())))
    }
}

/// What a `docker` prints until it is stopped.
struct Stream {
    client: Child,
    seen: String,
    pieces: std::sync::mpsc::Receiver<String>,
}

impl Stream {
    fn start(host: &Host, words: &[&str]) -> Result<Self> {
        let mut client = host.docker(words).stdout(Stdio::piped()).spawn().context("run docker")?;
        let output = client.stdout.take().context("its output")?;
        Ok(Self::of(client, output))
    }

    /// What comes from `source`, as it comes.
    fn of(client: Child, mut source: impl Read + Send + 'static) -> Self {
        let (send, pieces) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut piece = [0; PIECE_BYTES];
            while let Ok(length @ 1..) = source.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..length]).into_owned();
                if send.send(text).is_err() {
                    break;
                }
            }
        });
        Self { client, seen: String::new(), pieces }
    }

    /// Takes what has come, waiting a moment for it.
    fn listen(&mut self) {
        if let Ok(piece) = self.pieces.recv_timeout(Duration::from_millis(100)) {
            self.seen += &piece;
        }
    }

    /// Waits until this is printed, and forgets all up to it.
    fn wait_for(&mut self, wanted: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some((_, rest)) = self.seen.split_once(wanted) {
                self.seen = rest.to_owned();
                return Ok(());
            }
            ensure!(begun.elapsed() < LIMIT, "the stream shows {:?}, not {wanted:?}", self.seen);
            self.listen();
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}

fn size(terminal: &impl std::os::fd::AsFd, rows: u16, columns: u16) -> Result<()> {
    Ok(tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })?)
}
