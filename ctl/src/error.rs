//! Failures, and the exit codes that programs tell them apart by.

use std::fmt;

use keel_spec::api::{ApiError, ErrorCode};

/// A verb that could not be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Kind of failure.
    pub code: ErrorCode,
    /// What was being done to what, why it failed, what to do.
    pub message: String,
}

/// Result of a verb.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure of this kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The API can't be reached, or went away.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        self.code.exit_code()
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { code: error.code, message: error.message }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
