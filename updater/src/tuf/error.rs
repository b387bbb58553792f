//! Why metadata was refused, with the file and the kind of failure.

use keel_spec::api::ErrorCode;
use keel_spec::tuf::{MetadataError, Time};

/// A file that was refused, and why.
#[derive(Debug, thiserror::Error)]
#[error("{file} {problem}")]
pub struct Error {
    /// Name of the file in the repository.
    pub file: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Not what the specification calls metadata.
    #[error(transparent)]
    Malformed(#[from] MetadataError),
    /// Too few signatures by keys that count.
    #[error(
        "has a valid signature by {have} of the {need} keys needed for {role}: it wasn't published with the owner's keys"
    )]
    Signature {
        /// Valid signatures by different keys.
        have: usize,
        /// Threshold of the role.
        need: u64,
        /// The role.
        role: String,
    },
    /// A role has no keys.
    #[error("has no keys for {0}")]
    NoRole(String),
    /// Too old to be trusted: somebody may be hiding newer files.
    #[error(
        "expired on {}, this host's clock says {}: publish a fresh one with keel-image publish",
        .expires.for_people(),
        .now.for_people()
    )]
    Expired {
        /// When.
        expires: Time,
        /// By which clock.
        now: Time,
    },
    /// Older than what was accepted before.
    #[error("offers {what} {offered}, but {trusted} was accepted before: somebody serves old files")]
    Rollback {
        /// Version of what.
        what: String,
        /// The version offered.
        offered: u64,
        /// The version accepted before.
        trusted: u64,
    },
    /// A version that doesn't fit the file that named it.
    #[error("is version {got}, {by} says {want}: the repository's files don't belong together")]
    Version {
        /// What it is.
        got: u64,
        /// What it should be.
        want: u64,
        /// Who says so.
        by: String,
    },
    /// A length or digest that doesn't fit the file that named it.
    #[error("doesn't have the {what} that {by} promises: it was changed or belongs to another publication")]
    Digest {
        /// `length`, `sha256` or `sha512`.
        what: &'static str,
        /// Who promises.
        by: String,
    },
    /// A file that was accepted before is no longer listed.
    #[error("no longer lists {0}")]
    Vanished(String),
    /// A file has to be listed.
    #[error("doesn't list {0}")]
    NotListed(String),
    /// The server doesn't have it.
    #[error("isn't there")]
    Missing,
    /// The server can't be reached or answers wrongly.
    #[error("can't be fetched: {0}")]
    Fetch(String),
    /// It can't be read from or written to this host's disk.
    #[error("can't be kept on this host: {0}")]
    Store(String),
}

impl Error {
    /// For a file.
    pub fn new(file: impl Into<String>, problem: impl Into<Problem>) -> Self {
        Self { file: file.into(), problem: problem.into() }
    }

    /// Kind of failure.
    pub fn code(&self) -> ErrorCode {
        match self.problem {
            Problem::Signature { .. } | Problem::NoRole(_) => ErrorCode::Signature,
            Problem::Expired { .. } => ErrorCode::Expired,
            Problem::Rollback { .. } | Problem::Vanished(_) => ErrorCode::Rollback,
            Problem::Version { .. } | Problem::Digest { .. } => ErrorCode::Digest,
            Problem::Malformed(_) | Problem::NotListed(_) | Problem::Missing | Problem::Fetch(_) => ErrorCode::Network,
            Problem::Store(_) => ErrorCode::Internal,
        }
    }
}
