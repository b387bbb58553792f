//! What readers of logs and attached clients get.

use std::io;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cancel::Cancel;
use crate::error::{Doing, Error};
use crate::log::reader::Cursor;
use crate::stdin::Stdin;

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
    pub(crate) bell: Cancel,
}

impl StdinWriter {
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
        self.stdin.detach();
    }
}
