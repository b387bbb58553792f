//! Why the updater refused or failed: a kind for programs and a sentence for people.

use keel_spec::api::{ApiError, ErrorCode};

/// A refusal or failure, as it travels to whoever asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Kind of failure.
    pub code: ErrorCode,
    /// What was being done to what, why it failed, what to do.
    pub message: String,
}

/// Shorthand for results of this crate.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A refusal or failure.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// For `map_err`: an operation of this machine that failed, with the error's own chain.
    pub fn io<E: std::error::Error>(operation: impl std::fmt::Display) -> impl FnOnce(E) -> Self {
        move |error| Self::new(ErrorCode::Internal, format!("{operation}: {}", chain(&error)))
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        Self { code: failure.code, message: failure.message }
    }
}

/// An error with its causes, each said once.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    // Bounded, because nothing stops an error from being its own source.
    for _ in 0..8 {
        let Some(cause) = next else { break };
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
