//! Why a build failed.

use std::io;

use crate::dockerfile::ParseError;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request, the context or an instruction asks for what can't be done.
    #[error("{0}")]
    Bad(String),
    /// The Dockerfile can't be read.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A command of the build failed. The words are Docker's.
    #[error("The command '{command}' returned a non-zero code: {code}")]
    Failed {
        /// The command.
        command: String,
        /// Its exit code.
        code: i64,
    },
    /// The images' store failed.
    #[error(transparent)]
    Store(#[from] keel_store::Error),
    /// The containers' engine failed.
    #[error(transparent)]
    Engine(#[from] keel_engine::Error),
    /// What was to be fetched couldn't be.
    #[error(transparent)]
    Fetch(#[from] keel_fetch::Error),
    /// The disk, or the kernel, refused something.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The client went away.
    #[error("the build was cancelled")]
    Cancelled,
    /// Too many builds at once.
    #[error("{0} builds are running already: try again when one has ended")]
    Busy(usize),
    /// One of the above, in a step.
    #[error("{} (step {number}/{total}{}: {text})", chain(source), place(*line))]
    Step {
        /// Which step, from 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// Its line in the Dockerfile; 0: it isn't from there.
        line: usize,
        /// The instruction, shortened.
        text: String,
        /// What failed.
        source: Box<Error>,
    },
}

impl Error {
    /// The message with its causes.
    pub fn chain(&self) -> String {
        match self {
            // It tells its cause itself.
            Self::Step { .. } => self.to_string(),
            other => chain(other),
        }
    }

    /// Exit code for the client: that of a command that failed, else 1.
    pub fn code(&self) -> i64 {
        match self {
            Self::Failed { code, .. } => *code,
            Self::Step { source, .. } => source.code(),
            _ => 1,
        }
    }

    /// Adds what was being done to an error of the system.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Io { doing, source }
    }
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn place(line: usize) -> String {
    if line == 0 { String::new() } else { format!(", line {line}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_says_which_and_where_and_keeps_the_exit_code() {
        let failed = Error::Failed { command: "/bin/sh -c exit 3".into(), code: 3 };
        let step = Error::Step { number: 2, total: 4, line: 7, text: "RUN exit 3".into(), source: Box::new(failed) };
        let expected = "The command '/bin/sh -c exit 3' returned a non-zero code: 3 (step 2/4, line 7: RUN exit 3)";
        assert_eq!((step.chain().as_str(), step.code()), (expected, 3));
    }
}
