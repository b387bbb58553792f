//! Answers: bodies, JSON, and what a failure looks like on the wire.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::body::{Bytes, Frame};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use keel_spec::api::{ApiError, ErrorCode};
use serde::Serialize;
use tokio::sync::mpsc;

/// Body of every answer.
pub type Body = BoxBody<Bytes, io::Error>;

/// Chunks that a streamed answer may be ahead of its client; then its producer waits.
const CHUNKS_AHEAD: usize = 16;

/// A request that can't be carried out.
#[derive(Debug)]
pub struct Failure {
    /// HTTP status.
    pub status: StatusCode,
    /// Kind of failure, for programs.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

impl Failure {
    /// With the HTTP status that belongs to `code`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.into() }
    }

    /// The client asked for something that makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::BadRequest, message)
    }

    /// The thing named isn't there.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// Our fault.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, message)
    }

    /// A program of the host isn't answering.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// Docker has it, Keel hasn't.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_IMPLEMENTED, code: ErrorCode::BadRequest, message: message.into() }
    }

    /// As the body of an answer: `message` is what Docker's clients read, `code` what ours do.
    pub fn to_api_error(&self) -> ApiError {
        ApiError { code: self.code, message: self.message.clone() }
    }

    /// The answer itself. 304 carries no body (RFC 9110, section 15.4.5).
    pub fn into_response(self) -> Response<Body> {
        if self.status == StatusCode::NOT_MODIFIED {
            return empty(self.status);
        }
        json(self.status, &self.to_api_error())
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self::new(error.code, error.message)
    }
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response<Body> {
    with_body(status, None, Empty::new().map_err(|never| match never {}).boxed())
}

/// A JSON answer, ended by a line feed as Docker's are.
pub fn json<T: Serialize>(status: StatusCode, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            bytes_body(status, "application/json", bytes)
        }
        Err(error) => bytes_body(
            StatusCode::INTERNAL_SERVER_ERROR,
            "application/json",
            format!("{{\"code\":\"internal\",\"message\":\"cannot write the answer as JSON: {error}\"}}\n")
                .into_bytes(),
        ),
    }
}

/// An answer that is all there.
pub fn bytes_body(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response<Body> {
    with_body(status, Some(content_type), Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed())
}

/// An answer whose body comes from a [`Producer`].
pub fn stream(status: StatusCode, content_type: &'static str, body: ChannelBody) -> Response<Body> {
    with_body(status, Some(content_type), body.boxed())
}

fn with_body(status: StatusCode, content_type: Option<&'static str>, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

/// The end of a streamed body that is written to.
#[derive(Clone)]
pub struct Producer(mpsc::Sender<io::Result<Bytes>>);

/// The client is gone.
#[derive(Debug)]
pub struct Gone;

impl Producer {
    /// Sends a chunk, waiting for the client to take those before it.
    pub async fn send(&self, chunk: Bytes) -> Result<(), Gone> {
        self.0.send(Ok(chunk)).await.map_err(|_| Gone)
    }

    /// The same on a thread that may block.
    pub fn blocking_send(&self, chunk: Bytes) -> Result<(), Gone> {
        self.0.blocking_send(Ok(chunk)).map_err(|_| Gone)
    }

    /// The same where a chunk that there is no room for may be lost.
    pub fn try_send(&self, chunk: Bytes) -> Result<(), Gone> {
        self.0.try_send(Ok(chunk)).map_err(|_| Gone)
    }

    /// Breaks the body off: the client sees that it isn't whole.
    pub async fn fail(&self) {
        let _ = self.0.send(Err(io::ErrorKind::BrokenPipe.into())).await;
    }

    /// Waits until the client is gone.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

/// A body that is made while it is sent. Dropped when the client is gone, which [`Producer::closed`] tells.
pub struct ChannelBody {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    first: Option<io::Result<Bytes>>,
}

impl ChannelBody {
    /// A body and the end to write it from.
    pub fn new() -> (Producer, Self) {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        (Producer(sender), Self { receiver, first: None })
    }

    /// The next chunk, for those who send it themselves; `None`: the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.receiver.recv().await?.ok()
    }

    /// Waits until there is something to send; false: it ended without a byte.
    pub async fn wait_for_first(&mut self) -> bool {
        if self.first.is_none() {
            self.first = self.receiver.recv().await;
        }
        self.first.is_some()
    }
}

impl hyper::body::Body for ChannelBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first.map(Frame::data)));
        }
        self.receiver.poll_recv(context).map(|chunk| chunk.map(|bytes| bytes.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn not_modified_has_no_body() {
        let failure = Failure { status: StatusCode::NOT_MODIFIED, code: ErrorCode::Conflict, message: "runs".into() };
        let response = failure.into_response();
        assert!(hyper::body::Body::is_end_stream(response.body()));
    }

    #[test]
    fn a_failure_has_the_key_that_docker_clients_read() {
        let text = serde_json::to_string(&Failure::not_found("No such image: x").to_api_error()).unwrap();
        assert_eq!(text, r#"{"code":"not-found","message":"No such image: x"}"#);
    }
}
