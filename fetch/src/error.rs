//! What can go wrong with a request. Every message names the address, without its query and without credentials.

use std::io;
use std::time::Duration;

/// Why a request, or the body of its response, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be used.
    #[error("request for {url}: the address is unusable, {reason}")]
    Url {
        /// Address, as given but without secrets.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The client itself can't work, for example because the trust anchors are unreadable.
    #[error("request for {url}: the client is not usable, {reason}")]
    Setup {
        /// Address.
        url: String,
        /// What is wrong, with the file concerned.
        reason: String,
    },
    /// The host's name has no address, or no name server answered.
    #[error("request for {url}: its host name can't be resolved")]
    Resolve {
        /// Address.
        url: String,
        /// Which server said what.
        #[source]
        source: crate::resolve::Error,
    },
    /// No TCP connection came about.
    #[error("request for {url}: can't connect")]
    Connect {
        /// Address.
        url: String,
        /// The system's reason, of the last address tried.
        #[source]
        source: io::Error,
    },
    /// The TLS handshake failed, for example over a certificate that isn't trusted.
    #[error("request for {url}: no TLS session, {reason}")]
    Tls {
        /// Address.
        url: String,
        /// Reason from the TLS library.
        reason: String,
    },
    /// Nothing moved for too long.
    #[error("request for {url}: {step} took longer than {limit:?}")]
    Timeout {
        /// Address.
        url: String,
        /// What was waited for.
        step: &'static str,
        /// How long.
        limit: Duration,
    },
    /// Too little came for too long ([`crate::LeastRate`]).
    #[error("request for {url}: the server is too slow, fewer than {least_bytes} bytes came in {within:?}")]
    Slow {
        /// Address.
        url: String,
        /// Bytes that should have come.
        least_bytes: u64,
        /// In this time of waiting.
        within: Duration,
    },
    /// The status wasn't one that the caller can use.
    #[error("request for {url}: the server answered {status}{}", excerpt(.body))]
    Status {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
        /// Beginning of the body, if it is text; at most [`crate::message::MAX_EXCERPT_BYTES`].
        body: String,
        /// How long the server asks to be left alone (RFC 9110 section 10.2.3), where it says so in seconds.
        retry_after: Option<Duration>,
    },
    /// The body is, or claims to be, longer than the caller allows.
    #[error("request for {url}: the body is longer than the {max_bytes} bytes allowed")]
    TooLong {
        /// Address.
        url: String,
        /// Cap of the request.
        max_bytes: u64,
    },
    /// The connection ended before the body did.
    #[error("request for {url}: the connection ended after {got} bytes of the body")]
    Cut {
        /// Address.
        url: String,
        /// Bytes of the body that came.
        got: u64,
    },
    /// The other side doesn't speak HTTP as it should, or redirects in circles or to where we may not go.
    #[error("request for {url}: {reason}")]
    Protocol {
        /// Address.
        url: String,
        /// What it did.
        reason: String,
    },
    /// Reading or writing on a connection failed.
    #[error("request for {url}: the connection failed")]
    Io {
        /// Address.
        url: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the same request may succeed a little later: network trouble, 408, 429 and 5xx.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Resolve { source, .. } => source.is_transient(),
            Self::Connect { .. } | Self::Timeout { .. } | Self::Slow { .. } | Self::Cut { .. } | Self::Io { .. } => {
                true
            }
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Url { .. } | Self::Setup { .. } | Self::Tls { .. } | Self::TooLong { .. } | Self::Protocol { .. } => {
                false
            }
        }
    }

    /// How long the server asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The error that a [`crate::Body`] put into an [`io::Error`], if it is one.
    pub fn from_io(error: &io::Error) -> Option<&Self> {
        error.get_ref().and_then(|inner| inner.downcast_ref())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Timeout { .. } | Error::Slow { .. } => io::ErrorKind::TimedOut,
            Error::Cut { .. } => io::ErrorKind::UnexpectedEof,
            Error::TooLong { .. } => io::ErrorKind::FileTooLarge,
            Error::Protocol { .. } => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

fn excerpt(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body}") }
}
