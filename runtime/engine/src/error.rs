//! Why a request failed. The messages of [`Error::NotFound`] and [`Error::Conflict`] use the words of Docker's daemon
//! where clients match on them.

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thing named isn't there (HTTP 404).
    #[error("{0}")]
    NotFound(String),
    /// The state of the thing doesn't allow it, or a name is taken (HTTP 409).
    #[error("{0}")]
    Conflict(String),
    /// The request itself is wrong, or asks for something that isn't done yet (HTTP 400).
    #[error("{0}")]
    BadParameter(String),
    /// It may not be done (HTTP 403).
    #[error("{0}")]
    Forbidden(String),
    /// Keel, or this machine, hasn't got it (HTTP 501).
    #[error("{0}")]
    Unsupported(String),
    /// It is so already (HTTP 304).
    #[error("{0} is in that state already")]
    NotModified(String),
    /// The caller left (no answer is wanted).
    #[error("the caller has gone away")]
    Cancelled,
    /// A fault of Keel, of the machine, or of the container's own image (HTTP 500).
    #[error("{doing}")]
    Internal {
        /// What was being done to what.
        doing: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    /// A fault while `doing` something.
    pub fn internal(doing: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal { doing: doing.into(), source: source.into() }
    }

    /// Docker's words for a container that isn't there.
    pub(crate) fn no_container(wanted: &str) -> Self {
        Self::NotFound(format!("No such container: {wanted}"))
    }

    /// The message with all its causes, as logs and clients should see it.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Adds what was being done to an error of the system or of another room.
pub(crate) trait Doing<T> {
    /// Wraps the error as [`Error::Internal`]; the words are only made when they are needed.
    fn doing<W: Into<String>>(self, words: impl FnOnce() -> W) -> Result<T, Error>;
}

impl<T, E: Into<Box<dyn std::error::Error + Send + Sync>>> Doing<T> for Result<T, E> {
    fn doing<W: Into<String>>(self, words: impl FnOnce() -> W) -> Result<T, Error> {
        self.map_err(|error| Error::internal(words(), error))
    }
}
