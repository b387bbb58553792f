//! What can go wrong. Where Docker's clients show a message to people, or match on it, the words are Docker's.

use std::io;

use crate::digest::Digest;
use crate::reference::BadReference;

/// Why an operation on the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such image here.
    #[error("No such image: {0}")]
    NoSuchImage(String),
    /// A short ID that fits several images.
    #[error("multiple images match the ID prefix {0}")]
    Ambiguous(String),
    /// A malformed name.
    #[error(transparent)]
    Reference(#[from] BadReference),
    /// The image can't be removed as things are.
    #[error("conflict: unable to delete {name} ({hint}) - {reason}")]
    Conflict {
        /// What was to be removed.
        name: String,
        /// Whether force would help, in Docker's words.
        hint: &'static str,
        /// What stands against it.
        reason: String,
    },
    /// The registry doesn't have it, or hides it.
    #[error("registry {registry} doesn't have {reference}: {message}")]
    NotInRegistry {
        /// Registry.
        registry: String,
        /// Name asked for.
        reference: String,
        /// The registry's words, such as "manifest unknown".
        message: String,
    },
    /// The registry wants (other) credentials.
    #[error(
        "pull access denied for {reference} at {registry}, it doesn't exist or may require 'docker login': {message}"
    )]
    Denied {
        /// Registry.
        registry: String,
        /// Name asked for.
        reference: String,
        /// The registry's words.
        message: String,
    },
    /// The registry failed, or broke the protocol.
    #[error("{reference} at {registry}: {message}")]
    Registry {
        /// Registry.
        registry: String,
        /// Name asked for.
        reference: String,
        /// What happened.
        message: String,
    },
    /// The network, or the registry's HTTP, failed.
    #[error("{reference}")]
    Fetch {
        /// Name asked for.
        reference: String,
        /// What happened.
        #[source]
        source: keel_fetch::Error,
    },
    /// Content isn't what its digest says.
    #[error("{what} is damaged or forged: expected {expected}, got {got}")]
    Digest {
        /// What was read.
        what: String,
        /// Digest promised.
        expected: Digest,
        /// Digest found.
        got: Digest,
    },
    /// A stream that can't be unpacked, read to its end for its digest.
    #[error("{what} can't be unpacked; its digest is {got}")]
    Junk {
        /// Which layer.
        what: String,
        /// Digest of the stream.
        got: Digest,
        /// What is wrong with it.
        #[source]
        reason: Box<Error>,
    },
    /// An image, or an archive of images, that can't be used.
    #[error("{what} can't be used: {reason}")]
    Invalid {
        /// Which image, layer or archive.
        what: String,
        /// Why.
        reason: String,
    },
    /// An entry of a layer that can't be unpacked, or must not be.
    #[error("{layer}: entry {path:?} refused: {reason}")]
    Entry {
        /// The layer.
        layer: String,
        /// Path in the archive.
        path: String,
        /// Why.
        reason: String,
    },
    /// The image has no variant for this machine.
    #[error("no matching manifest for {1} in the manifest list entries of {0}, or it doesn't run here")]
    NoPlatform(String, String),
    /// The machine config forbids it.
    #[error("{what} refused by the machine config: {reason}")]
    Policy {
        /// What was to be done.
        what: String,
        /// Why not.
        reason: &'static str,
    },
    /// The machine config wants a signature, and there is none that is good.
    #[error("{what} refused by the machine config (registry.require_signature): {reason}")]
    Unsigned {
        /// What was to be pulled or run.
        what: String,
        /// What is wrong with its signatures.
        reason: String,
    },
    /// The caller's stream failed.
    #[error("reading {what}")]
    Read {
        /// What was read.
        what: String,
        /// Reason.
        #[source]
        source: io::Error,
    },
    /// The taker of a stream failed.
    #[error("writing {what}")]
    Write {
        /// What was written.
        what: String,
        /// Reason.
        #[source]
        source: io::Error,
    },
    /// The store's own file system failed.
    #[error("{operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: String,
        /// Reason.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a step of mounting.
    #[error("mounting image {image}: {step}")]
    Mount {
        /// Image.
        image: String,
        /// Step.
        step: String,
        /// Reason.
        #[source]
        source: io::Error,
    },
    /// The operation was stopped by its caller.
    #[error("{0} was cancelled")]
    Cancelled(String),
}

/// What kind of answer an API gives for an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 404
    NotFound,
    /// 409
    Conflict,
    /// 400
    BadParameter,
    /// 403
    Forbidden,
    /// 500
    Internal,
}

impl Error {
    /// What kind of answer an API gives.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoSuchImage(_) | Self::NotInRegistry { .. } | Self::Denied { .. } | Self::NoPlatform(..) => {
                Kind::NotFound
            }
            Self::Conflict { .. } => Kind::Conflict,
            Self::Policy { .. } | Self::Unsigned { .. } => Kind::Forbidden,
            Self::Ambiguous(_) | Self::Reference(_) | Self::Invalid { .. } | Self::Junk { .. } | Self::Entry { .. } => {
                Kind::BadParameter
            }
            _ => Kind::Internal,
        }
    }

    /// Whether a registry, or the way to it, is to blame: another one may do better.
    pub(crate) fn is_of_registry(&self) -> bool {
        match self {
            Self::NotInRegistry { .. } | Self::Denied { .. } | Self::Registry { .. } | Self::Fetch { .. } => true,
            Self::Digest { .. } | Self::Junk { .. } | Self::NoPlatform(..) | Self::Unsigned { .. } => true,
            Self::Read { source, .. } => source.kind() != io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    pub(crate) fn io(operation: &'static str, path: impl AsRef<std::path::Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::Io { operation, path, source }
    }
}
