//! One request on its way to its endpoint, and what endpoints share.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use crate::context::Context;
use crate::query::Query;
use crate::respond::{Failure, Producer};
use crate::roles::Caller;

/// Longest JSON body of a request.
pub const MAX_JSON_BYTES: usize = 4 << 20;

/// One request on its way to its endpoint.
pub struct Call {
    /// What all endpoints share.
    pub context: Arc<Context>,
    /// Who calls.
    pub caller: Arc<Caller>,
    /// The request but for its body.
    pub head: Request<()>,
    /// Its body.
    pub body: Incoming,
    /// What stands for the pattern's placeholder, decoded.
    pub name: String,
    /// Its parameters.
    pub query: Query,
    /// Minor version of the Docker Engine API that the client speaks; the newest where it doesn't say.
    pub api_minor: u32,
}

/// Reads a whole body, at most [`MAX_JSON_BYTES`].
pub async fn read_body(body: Incoming) -> Result<Bytes, Failure> {
    match Limited::new(body, MAX_JSON_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Failure::bad_request(format!("request body is longer than {MAX_JSON_BYTES} bytes")))
        }
        Err(error) => Err(Failure::bad_request(format!("request body can't be read: {error}"))),
    }
}

/// Reads a JSON body.
pub async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<T, Failure> {
    let bytes = read_body(body).await?;
    if bytes.trim_ascii().is_empty() {
        return Err(Failure::bad_request("invalid JSON: got EOF while reading request body"));
    }
    serde_json::from_slice(&bytes).map_err(|error| Failure::bad_request(format!("invalid JSON: {error}")))
}

/// Runs a call that blocks for a moment on a thread made for that.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Failure::internal(format!("a worker ended early: {error}"))),
    }
}

/// Leave to block for as long as a client likes (waits, logs, attached streams). Those are counted, so that they
/// never take the threads which short calls need.
pub fn long_permit(context: &Context) -> Result<OwnedSemaphorePermit, Failure> {
    Arc::clone(&context.long_calls)
        .try_acquire_owned()
        .map_err(|_| Failure::unavailable("too many waits, logs and attached streams are open: close some"))
}

/// Most bytes that are still taken from a client after a failure.
const MAX_DRAINED_BYTES: u64 = 64 << 30;
/// Longest pause that a client may make over an archive before it is cut off.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// Bytes that are sent at once.
const WRITE_BYTES: usize = 64 << 10;

/// A streamed answer's body as a [`Write`], for code that blocks. Ends with an error when the client is gone or takes
/// nothing for [`STALL_LIMIT`].
pub struct ChannelWriter {
    producer: Producer,
    buffer: Vec<u8>,
    runtime: Handle,
}

impl ChannelWriter {
    /// Writes to `producer`. To be made on a thread of the runtime.
    pub fn new(producer: Producer) -> Self {
        Self { producer, buffer: Vec::new(), runtime: Handle::current() }
    }

    /// Sends what is left.
    pub fn finish(&mut self) -> Result<(), keel_engine::Error> {
        self.flush().map_err(|error| keel_engine::Error::internal("sending an answer", error))
    }

    /// Breaks the answer off, so that the client doesn't take it for whole.
    pub fn fail(&mut self) {
        self.buffer.clear();
        self.runtime.block_on(self.producer.fail());
    }

    fn send(&mut self) -> io::Result<()> {
        let chunk = Bytes::from(std::mem::take(&mut self.buffer));
        let producer = &self.producer;
        match self.runtime.block_on(async { tokio::time::timeout(STALL_LIMIT, producer.send(chunk)).await }) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")),
        }
    }
}

impl Write for ChannelWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES {
            self.send()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() { Ok(()) } else { self.send() }
    }
}

/// A request's body as a [`Read`], for code that blocks.
pub struct BodyReader {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    /// Where it waits for chunks, and whether with a limit.
    runtime: Handle,
    is_limited: bool,
}

impl BodyReader {
    /// Starts to read a body. Chunks wait in a short queue, so the client is slowed to the reader's pace. To be called on
    /// a thread of the runtime.
    pub fn new(mut body: Incoming) -> Self {
        let (sender, chunks) = mpsc::channel(4);
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let chunk = match frame {
                    Ok(frame) => match frame.into_data() {
                        Ok(data) => Ok(data),
                        Err(_trailers) => continue,
                    },
                    Err(error) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
                };
                if sender.send(chunk).await.is_err() {
                    return;
                }
            }
        });
        Self { chunks, current: Bytes::new(), runtime: Handle::current(), is_limited: false }
    }

    /// The same, but a client that sends nothing for [`STALL_LIMIT`] is cut off.
    pub fn limited(body: Incoming) -> Self {
        Self { is_limited: true, ..Self::new(body) }
    }

    /// What came of the body; after a failure the rest of it is taken, too: a client that is cut off while it sends never
    /// sees why.
    pub fn or_drain<T, E>(&mut self, result: Result<T, E>) -> Result<T, E> {
        if result.is_err() {
            self.is_limited = true;
            let _ = io::copy(&mut self.take(MAX_DRAINED_BYTES), &mut io::sink());
        }
        result
    }

    fn next_chunk(&mut self) -> io::Result<Option<Bytes>> {
        if !self.is_limited {
            return self.chunks.blocking_recv().transpose();
        }
        let chunks = &mut self.chunks;
        let received = self.runtime.block_on(async { tokio::time::timeout(STALL_LIMIT, chunks.recv()).await });
        received.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client stalls"))?.transpose()
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.next_chunk()? {
                Some(chunk) => self.current = chunk,
                None => return Ok(0),
            }
        }
        let count = self.current.len().min(buffer.len());
        if let (Some(target), Some(source)) = (buffer.get_mut(..count), self.current.get(..count)) {
            target.copy_from_slice(source);
        }
        let _ = self.current.split_to(count);
        Ok(count)
    }
}
