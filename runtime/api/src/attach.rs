//! `POST /containers/{id}/attach`: the connection itself becomes the container's standard streams.
//!
//! A client that asks for `Upgrade: tcp` gets a 101 and then the bare connection; one that doesn't gets a 200 whose
//! body is the output, and may send the input as its request's body.

use std::io::Read as _;

use hyper::header::{CONNECTION, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use keel_engine::{AttachOptions, Attachment, LogReader, StdinWriter};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::call::{BodyReader, Call, blocking, long_permit};
use crate::context::Context;
use crate::logs::{content_type, pump};
use crate::respond::{ChannelBody, Failure, empty, stream};
use crate::router::Answer;

/// Bytes of input that are read at once.
const INPUT_CHUNK_BYTES: usize = 16 << 10;

/// `POST /containers/{id}/attach`
pub async fn attach(call: Call) -> Answer {
    let query = &call.query;
    let options = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
    };
    let Call { context, mut head, body, name, api_minor, .. } = call;
    let engine = context.engine.clone();
    let Attachment { stdin, output } = blocking(move || Ok(engine.attach(&name, &options)?)).await?;
    let content_type = content_type(api_minor);
    if wants_upgrade(&head) {
        let upgrade = hyper::upgrade::on(&mut head);
        tokio::spawn(hijacked(upgrade, stdin, output, context));
        let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("tcp"));
        headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        return Ok(response);
    }
    let permit = long_permit(&context)?;
    if let Some(stdin) = stdin {
        let input_permit = long_permit(&context)?;
        let body = BodyReader::new(body);
        tokio::task::spawn_blocking(move || {
            copy_body(body, stdin);
            drop(input_permit);
        });
    }
    let (producer, body) = ChannelBody::new();
    pump(output, producer, permit);
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

async fn hijacked(upgrade: OnUpgrade, stdin: Option<StdinWriter>, output: LogReader, context: std::sync::Arc<Context>) {
    if let Err(failure) = connect(upgrade, stdin, output, &context).await {
        log::info!("an attached stream ended early: {}", failure.message);
    }
}

/// Carries both directions until the output ends or the client is gone. A client that closes only its sending half
/// has no more input, but still wants the output.
async fn connect(
    upgrade: OnUpgrade,
    stdin: Option<StdinWriter>,
    output: LogReader,
    context: &Context,
) -> Result<(), Failure> {
    let upgraded = upgrade.await.map_err(|error| Failure::bad_request(format!("the client left: {error}")))?;
    let (read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let (producer, mut frames) = ChannelBody::new();
    let cancel_output = output.cancel();
    pump(output, producer, long_permit(context)?);
    let cancel_input = stdin.as_ref().map(StdinWriter::cancel);
    let input_permit = stdin.is_some().then(|| long_permit(context)).transpose()?;
    let input = tokio::spawn(async move {
        feed(read, stdin).await;
        drop(input_permit);
    });
    while let Some(frame) = frames.next().await {
        if write.write_all(&frame).await.is_err() {
            break;
        }
    }
    let _ = write.shutdown().await;
    cancel_output.cancel();
    if let Some(cancel) = cancel_input {
        cancel.cancel();
    }
    input.abort();
    Ok(())
}

/// Reads the client's half until it is closed; what comes goes to a thread that may block on the container.
async fn feed(mut read: impl AsyncRead + Unpin, stdin: Option<StdinWriter>) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(4);
    if let Some(mut stdin) = stdin {
        tokio::task::spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                if stdin.write(&chunk).is_err() {
                    return;
                }
            }
            stdin.close();
        });
    } else {
        chunks.close();
    }
    let mut buffer = vec![0; INPUT_CHUNK_BYTES];
    while let Ok(count @ 1..) = read.read(&mut buffer).await {
        // Without an open input the client's bytes are read and dropped, as Docker does.
        let _ = sender.send(buffer.get(..count).unwrap_or_default().to_vec()).await;
    }
}
