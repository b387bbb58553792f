//! `GET /containers/{id}/logs`, and the framing that it shares with attached streams.

use hyper::StatusCode;
use hyper::body::Bytes;
use keel_engine::{Frame, FrameSource, LogOptions, Stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::call::{Call, blocking, long_permit};
use crate::respond::{ChannelBody, Failure, Producer, stream};
use crate::router::Answer;
use crate::when::unix_ns;

/// Content type of framed streams; before API 1.42 clients knew only `application/vnd.docker.raw-stream`.
pub fn content_type(api_minor: u32, terminal: bool) -> &'static str {
    if api_minor >= 42 && !terminal {
        "application/vnd.docker.multiplexed-stream"
    } else {
        "application/vnd.docker.raw-stream"
    }
}

/// A frame as containers without a terminal have it: a byte for the stream, three zeros, the length in four bytes,
/// most significant first, then the data (Docker Engine API, "Attach to a container", stream format).
pub fn encode(frame: &Frame) -> Bytes {
    let stream = match frame.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let mut bytes = Vec::with_capacity(8 + frame.data.len());
    bytes.extend([stream, 0, 0, 0]);
    bytes.extend(u32::try_from(frame.data.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend(&frame.data);
    Bytes::from(bytes)
}

/// Sends what a reader gives until it ends or the client is gone.
pub fn pump(mut reader: impl FrameSource, terminal: bool, producer: Producer, permit: OwnedSemaphorePermit) {
    let cancel = reader.cancel();
    let gone = producer.clone();
    let pumping = tokio::task::spawn_blocking(move || {
        loop {
            match reader.next() {
                Ok(Some(frame)) => {
                    let bytes = if terminal { Bytes::from(frame.data) } else { encode(&frame) };
                    if producer.blocking_send(bytes).is_err() {
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    log::warn!("a container's output can't be sent: {}", error.chain());
                    break;
                }
            }
        }
        drop(permit);
    });
    tokio::spawn(async move {
        tokio::select! {
            () = gone.closed() => cancel.cancel(),
            _ = pumping => {}
        }
    });
}

/// `GET /containers/{id}/logs`
pub async fn logs(call: Call) -> Answer {
    let options = LogOptions {
        stdout: call.query.flag("stdout"),
        stderr: call.query.flag("stderr"),
        since_unix_ns: call.query.text("since").map(unix_ns).transpose()?.filter(|ns| *ns > 0),
        until_unix_ns: call.query.text("until").map(unix_ns).transpose()?.filter(|ns| *ns > 0),
        timestamps: call.query.flag("timestamps"),
        details: call.query.flag("details"),
        tail: tail(call.query.text("tail")),
        follow: call.query.flag("follow"),
    };
    if !options.stdout && !options.stderr {
        return Err(Failure::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let permit = long_permit(&call.context)?;
    let (engine, api_minor) = (call.context.engine.clone(), call.api_minor);
    let reading = move || Ok((engine.logs(&call.name, &options)?, engine.has_terminal(&call.name)?));
    let (reader, terminal) = blocking(reading).await?;
    let (producer, body) = ChannelBody::new();
    pump(reader, terminal, producer, permit);
    Ok(stream(StatusCode::OK, content_type(api_minor, terminal), body))
}

/// `all`, or what is no number, means everything.
fn tail(text: Option<&str>) -> Option<usize> {
    text.and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_carry_stream_and_length() {
        let frame = Frame { stream: Stream::Stderr, data: b"abc".to_vec() };
        assert_eq!(&encode(&frame)[..], b"\x02\0\0\0\0\0\0\x03abc");
    }
}
