//! Failures on the bus: error names under `org.keel.Error.`, both ways.

use std::fmt;

use keel_spec::api::{ApiError, ErrorCode};
use keel_spec::bus::ERROR_PREFIX;
use zbus::DBusError;
use zbus::message::{Header, Message};
use zbus::names::ErrorName;

/// A failure that a served method answers with: `Result<T, Failure>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    what: ApiError,
    name: String,
}

/// A failure of kind `code`; `message` is for people.
pub fn error(code: ErrorCode, message: impl fmt::Display) -> Failure {
    Failure::from(ApiError { code, message: message.to_string() })
}

impl Failure {
    /// Kind and message.
    pub fn api_error(&self) -> &ApiError {
        &self.what
    }
}

impl From<ApiError> for Failure {
    fn from(what: ApiError) -> Self {
        let name = format!("{ERROR_PREFIX}{}", what.code.bus_name());
        Self { what, name }
    }
}

impl From<zbus::Error> for Failure {
    fn from(error: zbus::Error) -> Self {
        Self::from(to_api_error(&error))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what.message)
    }
}

impl std::error::Error for Failure {}

impl DBusError for Failure {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.what.message.as_str())
    }

    fn name(&self) -> ErrorName<'_> {
        // The names are the prefix and a word of a fixed table: always well formed.
        ErrorName::from_str_unchecked(&self.name)
    }

    fn description(&self) -> Option<&str> {
        Some(&self.what.message)
    }
}

/// What a call's failure is to the HTTP API and to `keelctl`: the way back from [`Failure`]. A connection that broke is
/// [`ErrorCode::Unavailable`], any foreign failure [`ErrorCode::Internal`].
pub fn to_api_error(error: &zbus::Error) -> ApiError {
    match error {
        zbus::Error::MethodError(name, description, _) => {
            let code = name.as_str().strip_prefix(ERROR_PREFIX).map(ErrorCode::from_bus_name);
            let message = description.clone().unwrap_or_else(|| name.to_string());
            ApiError { code: code.unwrap_or(ErrorCode::Internal), message }
        }
        zbus::Error::InputOutput(_) | zbus::Error::Connection(..) | zbus::Error::Handshake(_) => {
            ApiError { code: ErrorCode::Unavailable, message: format!("a host program does not answer: {error}") }
        }
        other => ApiError { code: ErrorCode::Internal, message: other.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_a_well_formed_error_name() {
        for code in ErrorCode::ALL {
            let failure = error(code, "x");
            assert!(ErrorName::try_from(failure.name().as_str()).is_ok(), "{code:?}");
        }
    }
}
