//! What readers of logs and attached clients get.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cancel::Cancel;
use crate::error::{Doing, Error};
use crate::exec::Exec;
use crate::log::reader::Cursor;
use crate::stdin::Stdin;
use crate::stdio::Stdio;

/// Which of a container's two outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A piece of a container's output, as it was written; at most about 50 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where it was written to.
    pub stream: Stream,
    /// What was written; any bytes.
    pub data: Vec<u8>,
}

/// What `logs` is to give.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Nothing before this, nanoseconds since the Unix epoch.
    pub since_unix_ns: Option<u64>,
    /// Nothing after this, nanoseconds since the Unix epoch.
    pub until_unix_ns: Option<u64>,
    /// A timestamp before each line.
    pub timestamps: bool,
    /// The attributes that log options name before each line.
    pub details: bool,
    /// Only the last so many lines; `None`: all.
    pub tail: Option<usize>,
    /// Go on with what is written until the container stops.
    pub follow: bool,
}

/// What `attach` is to connect.
#[derive(Clone, Debug, Default)]
pub struct AttachOptions {
    /// Standard input, if the container was created with it open.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// First everything that was written so far.
    pub logs: bool,
    /// Go on until the container stops; if it hasn't started, until its first run stops.
    pub stream: bool,
}

/// A connection to a container's standard streams.
pub struct Attachment {
    /// Writes to standard input; `None`: it isn't open, or wasn't asked for.
    pub stdin: Option<StdinWriter>,
    /// Reads the outputs.
    pub output: LogReader,
    /// Whether it has a terminal, so that its output is one stream without frames.
    pub terminal: bool,
}

/// Gives a process's output, piece by piece.
pub trait FrameSource: Send + 'static {
    /// The next piece, once there is one; `None`: the end, or cancelled.
    fn next(&mut self) -> Result<Option<Frame>, Error>;
    /// Ends [`FrameSource::next`] from another thread.
    fn cancel(&self) -> Cancel;
}

impl FrameSource for LogReader {
    fn next(&mut self) -> Result<Option<Frame>, Error> {
        LogReader::next(self)
    }
    fn cancel(&self) -> Cancel {
        LogReader::cancel(self)
    }
}

/// Reads a container's output; each call blocks until there is some.
pub struct LogReader(pub(crate) Cursor);

impl LogReader {
    /// The next piece; `None`: the end, or cancelled.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Frame>, Error> {
        self.0.next().doing(|| "reading a container's log")
    }

    /// Ends [`LogReader::next`] from another thread.
    pub fn cancel(&self) -> Cancel {
        self.0.bell().clone()
    }
}

/// Writes to a container's standard input. Dropping it closes the input if the container was created with
/// `StdinOnce`; [`StdinWriter::close`] says that the client sent its end of file.
pub struct StdinWriter {
    pub(crate) stdin: Arc<Stdin>,
    bell: Cancel,
    left: bool,
}

impl StdinWriter {
    pub(crate) fn new(stdin: Arc<Stdin>) -> Self {
        Self { stdin, bell: Cancel::new(), left: false }
    }

    /// Leaves without the input's being closed, whatever the container was created with.
    pub fn leave(mut self) {
        self.left = true;
    }

    /// How long one wait for a container that doesn't read lasts before it is looked whether the caller is still there.
    const POLL_S: i64 = 1;

    /// Writes all of `data`, waiting until the container has started and reads.
    /// An error of kind `BrokenPipe` means that nobody reads any more.
    pub fn write(&mut self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let pipe = self.stdin.pipe(&self.bell)?;
            match rustix::io::write(&*pipe, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    let mut wait = [PollFd::new(&pipe, PollFlags::OUT)];
                    let limit = Timespec { tv_sec: Self::POLL_S, tv_nsec: 0 };
                    match poll(&mut wait, Some(&limit)) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Says that nothing more will be written. The container reads its end of file if it was created with `StdinOnce`;
    /// otherwise its input stays open for the next client, as with Docker.
    pub fn close(self) {}

    /// Ends a [`StdinWriter::write`] that waits, from another thread.
    pub fn cancel(&self) -> Cancel {
        self.bell.clone()
    }
}

impl Drop for StdinWriter {
    fn drop(&mut self) {
        if !self.left {
            self.stdin.detach();
        }
    }
}

/// Reads the outputs of a process that was started with `exec`. Dropped before their end, what the process goes on
/// writing is read and lost, so that it isn't held up.
pub struct ExecReader {
    exec: Arc<Exec>,
    outputs: [Option<OwnedFd>; 2],
    stdio: Stdio,
    bell: Cancel,
    ended: Option<Instant>,
    /// Said before anything else.
    first: Option<Frame>,
}

impl ExecReader {
    /// Bytes that are read at once.
    const CHUNK_BYTES: usize = 32 * 1024;
    /// How long one wait lasts before it is looked whether the caller is still there.
    const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
    /// How long outputs are read on that others hold open after the process itself has ended, as Docker does.
    const LINGER: Duration = Duration::from_secs(2);

    pub(crate) fn new(exec: Arc<Exec>, outputs: [Option<OwnedFd>; 2], stdio: Stdio) -> io::Result<Self> {
        for output in outputs.iter().flatten() {
            rustix::io::ioctl_fionbio(output, true)?;
        }
        let bell = Cancel::new();
        exec.listen(&bell);
        Ok(Self { exec, outputs, stdio, bell, ended: None, first: None })
    }

    /// One of a process that never ran, which says why.
    pub(crate) fn telling(exec: Arc<Exec>, message: String, stdio: Stdio) -> Self {
        let first = Some(Frame { stream: Stream::Stdout, data: message.into_bytes() });
        Self { exec, outputs: [None, None], stdio, bell: Cancel::new(), ended: None, first }
    }

    fn read(&mut self) -> Option<Frame> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        for (output, stream) in self.outputs.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
            let Some(pipe) = output else { continue };
            let mut data = vec![0; Self::CHUNK_BYTES];
            match rustix::io::read(&*pipe, data.as_mut_slice()) {
                Ok(count @ 1..) => {
                    data.truncate(count);
                    return Some(Frame { stream, data });
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                // The end; of a terminal that is an error (EIO).
                Ok(_) | Err(_) => *output = None,
            }
        }
        None
    }

    /// Waits for output; `false`: there will be none.
    fn wait(&mut self) -> bool {
        let rings = self.bell.rings();
        let mut polled: Vec<_> = self.outputs.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        if polled.is_empty() {
            // Whoever sees the end of the output asks for the exit code next.
            let over = self.exec.exit_code().is_some();
            if !over {
                self.bell.wait(rings, Some(Instant::now() + Self::LINGER));
            }
            return !over;
        }
        // Errors come again at the next turn, or with the process's end.
        let _ = poll(&mut polled, Some(&Self::POLL));
        if self.exec.exit_code().is_some() {
            return self.ended.get_or_insert_with(Instant::now).elapsed() < Self::LINGER;
        }
        true
    }
}

impl ExecReader {
    /// The next piece, if it comes before `deadline`; `None`: the end, too late, or cancelled.
    pub(crate) fn next_before(&mut self, deadline: Instant) -> Option<Frame> {
        self.advance(Some(deadline))
    }

    fn advance(&mut self, deadline: Option<Instant>) -> Option<Frame> {
        loop {
            if self.bell.is_cancelled() || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return None;
            }
            if let Some(frame) = self.read() {
                return Some(frame);
            }
            if !self.wait() {
                return self.read();
            }
        }
    }
}

impl FrameSource for ExecReader {
    fn next(&mut self) -> Result<Option<Frame>, Error> {
        Ok(self.advance(None))
    }

    fn cancel(&self) -> Cancel {
        self.bell.clone()
    }
}

impl Drop for ExecReader {
    fn drop(&mut self) {
        for output in self.outputs.iter_mut().filter_map(Option::take) {
            if let Err(error) = self.stdio.discard(&self.exec.id, output) {
                ::log::error!("exec {}: its output cannot be watched: {error}", self.exec.id);
            }
        }
    }
}
