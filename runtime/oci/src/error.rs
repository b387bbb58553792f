//! Why a container couldn't be created or started.

use std::io;

/// Why a container couldn't be created or started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration asks for what can't be done, or contradicts itself.
    #[error("container configuration: {field}: {reason}")]
    Config {
        /// Which field, as in `config.json`.
        field: String,
        /// Why it is refused.
        reason: String,
    },
    /// A step on the host's side failed.
    #[error("{step}")]
    Host {
        /// What was being done to what.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A step inside the container failed.
    #[error("in the container: {step}")]
    Inside {
        /// What was being done to what.
        step: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The program of the container couldn't be executed.
    #[error("execute {program:?} in container{hint}")]
    Exec {
        /// First argument of the process.
        program: String,
        /// Where it was looked for.
        hint: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A hook failed.
    #[error(transparent)]
    Hook(#[from] crate::hooks::HookError),
    /// The process ended, or said nothing in time.
    #[error("container's process {0}")]
    Gone(&'static str),
}

impl Error {
    /// Whether the program of the container doesn't exist (`docker run` then exits with 127).
    pub fn is_program_missing(&self) -> bool {
        matches!(self, Error::Exec { source, .. } if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)))
    }

    /// Whether the program of the container exists and can't be executed (exit code 126).
    pub fn is_program_refused(&self) -> bool {
        matches!(self, Error::Exec { .. }) && !self.is_program_missing()
    }
}

/// Names the step that a failed call was part of.
pub(crate) trait Step<T> {
    /// On the host's side.
    fn host(self, step: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn host(self, step: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Host { step: step(), source: source.into() })
    }
}
