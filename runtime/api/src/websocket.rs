//! `GET /containers/{id}/attach/ws`: a container's streams over a WebSocket (RFC 6455), for programs in browsers. Output
//! comes in binary messages, without the frames that tell the streams apart, as Docker does; what is sent is input.

use std::sync::Arc;

use base64::Engine as _;
use hyper::StatusCode;
use hyper::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use keel_engine::{AttachOptions, Attachment, StdinWriter};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::call::{Call, blocking, long_permit};
use crate::context::Context;
use crate::logs::pump;
use crate::respond::{ChannelBody, Failure, empty};
use crate::router::Answer;

/// What the client's key is hashed with (RFC 6455, section 4.2.2).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Longest frame that is taken, bytes.
const MAX_FRAME_BYTES: u64 = 1 << 20;
/// Status of a close frame whose reason is that a message was too big (section 7.4.1).
const TOO_BIG: u16 = 1009;
/// Status for what breaks the protocol.
const PROTOCOL_ERROR: u16 = 1002;
/// Status for the ordinary end.
const NORMAL: u16 = 1000;

/// Kinds of frames (section 5.2).
mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// `GET /containers/{id}/attach/ws`
pub async fn attach(mut call: Call) -> Answer {
    let query = &call.query;
    let stream = query.flag_or("stream", true);
    let all = !["stdin", "stdout", "stderr"].iter().any(|name| query.get(name).is_some());
    let options = AttachOptions {
        stdin: all || query.flag("stdin"),
        stdout: all || query.flag("stdout"),
        stderr: all || query.flag("stderr"),
        logs: query.flag("logs"),
        stream,
    };
    let accept = accept(&call)?;
    let upgrade = hyper::upgrade::on(&mut call.head);
    let Call { context, name, .. } = call;
    let engine = context.engine.clone();
    let attached = blocking(move || Ok(engine.attach(&name, &options)?)).await?;
    tokio::spawn(async move {
        if let Err(failure) = connect(upgrade, attached, &context).await {
            log::info!("a WebSocket ended early: {}", failure.message);
        }
    });
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::from_str(&accept).map_err(|error| Failure::internal(error.to_string()))?;
    headers.insert(HeaderName::from_static("sec-websocket-accept"), accept);
    Ok(response)
}

/// Checks the handshake (section 4.2.1); its answer to the client's key.
fn accept(call: &Call) -> Result<String, Failure> {
    let header = |name: &str| call.head.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !header("upgrade").eq_ignore_ascii_case("websocket") || header("sec-websocket-version") != "13" {
        return Err(Failure::bad_request("not websocket protocol: want Upgrade: websocket, version 13"));
    }
    let key = header("sec-websocket-key");
    if base64::engine::general_purpose::STANDARD.decode(key).map_or(0, |bytes| bytes.len()) != 16 {
        return Err(Failure::bad_request("mismatch challenge/response: Sec-WebSocket-Key isn't 16 bytes in base64"));
    }
    Ok(answer_to(key))
}

fn answer_to(key: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    base64::engine::general_purpose::STANDARD.encode(digest)
}

/// What the client's side has to say to ours.
enum Told {
    Pong(Vec<u8>),
    Closed(u16),
}

/// Carries both directions until the output ends or the client closes.
async fn connect(upgrade: OnUpgrade, attached: Attachment, context: &Arc<Context>) -> Result<(), Failure> {
    let Attachment { stdin, output, .. } = attached;
    let upgraded = upgrade.await.map_err(|error| Failure::bad_request(format!("the client left: {error}")))?;
    let (read, mut write) = tokio::io::split(TokioIo::new(upgraded));
    let (producer, mut frames) = ChannelBody::new();
    let cancel_output = output.cancel();
    // As from a terminal: without frames.
    pump(output, true, producer, long_permit(context)?);
    let cancel_input = stdin.as_ref().map(StdinWriter::cancel);
    let permit = stdin.is_some().then(|| long_permit(context)).transpose()?;
    let (told, mut telling) = mpsc::channel(4);
    let input = tokio::spawn(async move {
        feed(read, stdin, &told).await;
        drop(permit);
    });
    let status = loop {
        tokio::select! {
            chunk = frames.next() => match chunk {
                Some(chunk) if write.write_all(&frame(opcode::BINARY, &chunk)).await.is_ok() => {}
                _ => break NORMAL,
            },
            told = telling.recv() => match told {
                Some(Told::Pong(bytes)) if write.write_all(&frame(opcode::PONG, &bytes)).await.is_ok() => {}
                Some(Told::Closed(status)) => break status,
                Some(Told::Pong(_)) | None => break NORMAL,
            },
        }
    };
    let _ = write.write_all(&frame(opcode::CLOSE, &status.to_be_bytes())).await;
    let _ = write.shutdown().await;
    cancel_output.cancel();
    if let Some(cancel) = cancel_input {
        cancel.cancel();
    }
    input.abort();
    Ok(())
}

/// Reads the client's frames; input goes to a thread that may block on the container.
async fn feed(mut read: impl AsyncRead + Unpin, stdin: Option<StdinWriter>, told: &mpsc::Sender<Told>) {
    let (sender, mut chunks) = mpsc::channel::<Vec<u8>>(4);
    match stdin {
        Some(mut stdin) => drop(tokio::task::spawn_blocking(move || {
            while let Some(chunk) = chunks.blocking_recv() {
                if stdin.write(&chunk).is_err() {
                    return;
                }
            }
            stdin.close();
        })),
        None => chunks.close(),
    }
    let status = loop {
        match next_frame(&mut read).await {
            Ok((opcode::CONTINUATION | opcode::TEXT | opcode::BINARY, bytes)) => {
                // Without an open input it is dropped.
                let _ = sender.send(bytes).await;
            }
            Ok((opcode::PING, bytes)) => drop(told.send(Told::Pong(bytes)).await),
            Ok((opcode::PONG, _)) => {}
            Ok((opcode::CLOSE, _)) => break NORMAL,
            Ok(_) => break PROTOCOL_ERROR,
            Err(status) => break status,
        }
    };
    let _ = told.send(Told::Closed(status)).await;
}

/// One frame: its kind and its bytes, unmasked. `Err`: the status to close with.
async fn next_frame(read: &mut (impl AsyncRead + Unpin)) -> Result<(u8, Vec<u8>), u16> {
    let gone = |_| NORMAL;
    let mut head = [0_u8; 2];
    read.read_exact(&mut head).await.map_err(gone)?;
    let (kind, is_masked, short) = (head[0] & 0x0F, head[1] & 0x80 != 0, head[1] & 0x7F);
    let length = match short {
        126 => u64::from(read.read_u16().await.map_err(gone)?),
        127 => read.read_u64().await.map_err(gone)?,
        short => short.into(),
    };
    // Extensions weren't agreed on, clients have to mask, and control frames are short (sections 5.1 to 5.5).
    if head[0] & 0x70 != 0 || !is_masked || kind >= opcode::CLOSE && length > 125 {
        return Err(PROTOCOL_ERROR);
    }
    if length > MAX_FRAME_BYTES {
        return Err(TOO_BIG);
    }
    let mut mask = [0_u8; 4];
    read.read_exact(&mut mask).await.map_err(gone)?;
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| TOO_BIG)?];
    read.read_exact(&mut bytes).await.map_err(gone)?;
    bytes.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    Ok((kind, bytes))
}

/// A whole message in one frame; servers don't mask.
fn frame(kind: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match (u8::try_from(bytes.len()), u16::try_from(bytes.len())) {
        (Ok(short @ 0..=125), _) => frame.push(short),
        (_, Ok(medium)) => {
            frame.push(126);
            frame.extend(medium.to_be_bytes());
        }
        _ => {
            frame.push(127);
            frame.extend((bytes.len() as u64).to_be_bytes());
        }
    }
    frame.extend(bytes);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(u8, Vec<u8>), u16> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(next_frame(&mut &bytes[..]))
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_specification() {
        assert_eq!(answer_to("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn frames_are_unmasked_and_wrong_ones_end_the_connection() {
        // "Hello" of section 5.7.
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(read(&hello), Ok((opcode::TEXT, b"Hello".to_vec())));
        assert_eq!(read(&[0x81, 0x05, b'H', b'e', b'l', b'l', b'o']), Err(PROTOCOL_ERROR), "not masked");
        assert_eq!(read(&[0xC1, 0x80, 0, 0, 0, 0]), Err(PROTOCOL_ERROR), "an extension");
        assert_eq!(read(&[0x89, 0xFE, 0, 126]), Err(PROTOCOL_ERROR), "a long ping");
        assert_eq!(read(&[0x82, 0xFF, 0, 0, 0, 0, 0xFF, 0, 0, 0]), Err(TOO_BIG));
        assert_eq!(read(&hello[..7]), Err(NORMAL), "cut off");
    }

    #[test]
    fn lengths_are_written_in_the_shortest_form() {
        for (length, head) in [(125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            assert_eq!(frame(opcode::BINARY, &vec![0; length]).len(), length + head);
        }
    }
}
