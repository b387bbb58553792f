//! A connection that becomes a process's standard streams, for `attach` and `exec`.
//!
//! A client that asks for `Upgrade: tcp` gets a 101 and then the bare connection; one that doesn't gets a 200 whose
//! body is the output, and may send the input as its request's body. Without a terminal the output is framed (see
//! [`crate::logs`]); with one it is what the terminal shows.

use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue, UPGRADE};
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use keel_engine::{FrameSource, StdinWriter};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use crate::call::{BodyReader, long_permit};
use crate::context::Context;
use crate::detach::DetachKeys;
use crate::logs::{content_type, pump};
use crate::respond::{ChannelBody, Failure, empty, stream};
use crate::router::Answer;
use crate::sys;

/// Bytes of input that are read at once.
const INPUT_CHUNK_BYTES: usize = 16 << 10;
/// How long what was typed before the detach keys may still wait for the process to read it.
const LEAVE_GRACE: Duration = Duration::from_secs(5);

/// Longest wait for a client to read the 101 before output follows it, and the pause between two looks.
const HEAD_LIMIT: Duration = Duration::from_secs(2);
const HEAD_PAUSE: Duration = Duration::from_millis(1);

/// The streams of a process.
pub struct Streams<S> {
    /// Its output.
    pub output: S,
    /// Its input, if that is open.
    pub stdin: Option<StdinWriter>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// What a client types to leave; only looked for where there is a terminal, as with Docker.
    pub detach: DetachKeys,
}

/// Answers a request with the streams.
pub fn answer<S: FrameSource>(
    context: &Arc<Context>,
    mut head: Request<()>,
    body: Option<Incoming>,
    api_minor: u32,
    streams: Streams<S>,
) -> Answer {
    let content_type = content_type(api_minor, streams.terminal);
    if wants_upgrade(&head) {
        let upgrade = hyper::upgrade::on(&mut head);
        tokio::spawn(hijacked(upgrade, streams, context.clone()));
        let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        return Ok(response);
    }
    let permit = long_permit(context)?;
    if let (Some(stdin), Some(body)) = (streams.stdin, body) {
        let input_permit = long_permit(context)?;
        let body = BodyReader::new(body);
        tokio::task::spawn_blocking(move || {
            copy_body(body, stdin);
            drop(input_permit);
        });
    }
    let (producer, body) = ChannelBody::new();
    pump(streams.output, streams.terminal, producer, permit);
    Ok(stream(StatusCode::OK, content_type, body))
}

fn wants_upgrade<B>(request: &Request<B>) -> bool {
    request.headers().get(UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"tcp"))
}

fn copy_body(mut body: BodyReader, mut stdin: StdinWriter) {
    let mut chunk = vec![0; INPUT_CHUNK_BYTES];
    while let Ok(count @ 1..) = body.read(&mut chunk) {
        if stdin.write(chunk.get(..count).unwrap_or_default()).is_err() {
            return;
        }
    }
    stdin.close();
}

async fn hijacked<S: FrameSource>(upgrade: OnUpgrade, streams: Streams<S>, context: Arc<Context>) {
    if let Err(failure) = connect(upgrade, streams, &context).await {
        log::info!("an attached stream ended early: {}", failure.message);
    }
}

/// Carries both directions until the output ends, the client is gone, or has typed its detach keys. A client that
/// closes only its sending half has no more input, but still wants the output.
async fn connect<S: FrameSource>(upgrade: OnUpgrade, streams: Streams<S>, context: &Context) -> Result<(), Failure> {
    let Streams { output, stdin, terminal, detach } = streams;
    let upgraded = upgrade.await.map_err(|error| Failure::bad_request(format!("the client left: {error}")))?;
    let Connection { read, mut write, mut local } = Connection::new(upgraded);
    let (producer, mut frames) = ChannelBody::new();
    let cancel_output = output.cancel();
    pump(output, terminal, producer, long_permit(context)?);
    let cancel_input = stdin.as_ref().map(StdinWriter::cancel);
    let input_permit = stdin.is_some().then(|| long_permit(context)).transpose()?;
    let (left, mut leaving) = mpsc::channel::<()>(1);
    let detach = terminal.then_some(detach);
    let mut input = tokio::spawn(async move {
        if feed(read, stdin, detach).await {
            let _ = left.send(()).await;
        }
        drop(input_permit);
        // Held until the connection ends: a sender that is gone would look like leaving.
        left.closed().await;
    });
    let grace = loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            Some(()) = leaving.recv() => break LEAVE_GRACE,
        };
        if let Some(socket) = local.take() {
            until_read(socket).await;
        }
        match frame {
            Some(frame) if write.write_all(&frame).await.is_ok() => {}
            // The client doesn't read any more; what it typed before it left may still be on its way.
            Some(_) => break LEAVE_GRACE,
            None => break Duration::ZERO,
        }
    };
    let _ = write.shutdown().await;
    cancel_output.cancel();
    drop(leaving);
    if !grace.is_zero() {
        let _ = tokio::time::timeout(grace, &mut input).await;
    }
    if let Some(cancel) = cancel_input {
        tokio::spawn(async move {
            tokio::time::sleep(grace).await;
            cancel.cancel();
        });
    }
    input.abort();
    Ok(())
}

/// A client's connection after the 101.
struct Connection {
    read: Box<dyn AsyncRead + Send + Unpin>,
    write: Box<dyn AsyncWrite + Send + Unpin>,
    /// Until the first output: the socket of a client on the host.
    local: Option<OwnedFd>,
}

impl Connection {
    fn new(upgraded: Upgraded) -> Self {
        match upgraded.downcast::<TokioIo<UnixStream>>() {
            Ok(Parts { io, read_buf, .. }) => {
                let socket = io.into_inner();
                let local = socket.as_fd().try_clone_to_owned().ok();
                let (read, write) = socket.into_split();
                let read = AsyncReadExt::chain(io::Cursor::new(read_buf), read);
                Self { read: Box::new(read), write: Box::new(write), local }
            }
            Err(upgraded) => {
                let (read, write) = tokio::io::split(TokioIo::new(upgraded));
                Self { read: Box::new(read), write: Box::new(write), local: None }
            }
        }
    }
}

/// Waits until the client has read the 101. Docker's Python SDK reads that through a buffer which it then leaves behind,
/// with all that came at the same time. (Through TLS it reads a record at a time, so there is no need.)
async fn until_read(socket: OwnedFd) {
    let read = async {
        while sys::is_read(socket.as_fd()).is_ok_and(|is_read| !is_read) {
            tokio::time::sleep(HEAD_PAUSE).await;
        }
    };
    let _ = tokio::time::timeout(HEAD_LIMIT, read).await;
}

/// Reads the client's half until it is closed; what comes goes to a thread that may block on the process. Whether the
/// client typed its detach keys.
async fn feed(mut read: impl AsyncRead + Unpin, stdin: Option<StdinWriter>, mut detach: Option<DetachKeys>) -> bool {
    enum Input {
        Chunk(Vec<u8>),
        Leave,
    }
    let (sender, mut chunks) = mpsc::channel::<Input>(4);
    if let Some(mut stdin) = stdin {
        tokio::task::spawn_blocking(move || {
            while let Some(input) = chunks.blocking_recv() {
                match input {
                    Input::Chunk(chunk) if stdin.write(&chunk).is_ok() => {}
                    Input::Chunk(_) => return,
                    Input::Leave => return stdin.leave(),
                }
            }
            stdin.close();
        });
    } else {
        chunks.close();
    }
    let mut buffer = vec![0; INPUT_CHUNK_BYTES];
    while let Ok(count @ 1..) = read.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        let (chunk, leave) = match &mut detach {
            Some(keys) => keys.feed(bytes),
            None => (bytes.to_vec(), false),
        };
        // Without an open input the client's bytes are read and dropped, as Docker does.
        if !chunk.is_empty() {
            let _ = sender.send(Input::Chunk(chunk)).await;
        }
        if leave {
            let _ = sender.send(Input::Leave).await;
            return true;
        }
    }
    false
}
