//! What a long operation tells meanwhile. The words are Docker's: its clients show them as they come.

/// What is happening to one layer, or (without `id`) to the whole image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// First 12 digits of the layer's digest; `None`: the image as a whole.
    pub id: Option<String>,
    /// What is happening.
    pub status: Status,
}

/// What is happening. [`Status::text`] is what Docker's clients print.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// "Pulling from library/alpine"; the `id` is the tag.
    PullingFrom(String),
    /// The layer is known from the manifest.
    PullingLayer,
    /// The layer is here already.
    AlreadyExists,
    /// Compressed bytes come in, and are unpacked at the same time.
    Downloading {
        /// Bytes so far.
        current: u64,
        /// Bytes in all, 0: unknown.
        total: u64,
    },
    /// An archive comes in from this address.
    DownloadingFrom(String),
    /// Bytes of an archive are unpacked.
    Loading {
        /// Bytes so far.
        current: u64,
        /// Bytes in all, 0: unknown.
        total: u64,
    },
    /// "The push refers to repository [docker.io/library/alpine]".
    PushingTo(String),
    /// The layer waits for its turn.
    Preparing,
    /// Bytes of the layer's archive have been compressed and sent.
    Pushing {
        /// Bytes so far.
        current: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The layer is in the registry now.
    Pushed,
    /// The layer was in the repository already.
    LayerExists,
    /// The layer was in this other repository of the registry, and was taken from there.
    MountedFrom(String),
    /// The image is in the registry: tag, digest and length of its manifest.
    PushDone {
        /// Tag.
        tag: String,
        /// Digest of the manifest.
        digest: String,
        /// Length of the manifest.
        size: u64,
    },
    /// Trying again after a network error.
    Retrying {
        /// Seconds until then.
        seconds: u64,
    },
    /// The layer is complete.
    PullComplete,
    /// Digest of the manifest.
    Digest(String),
    /// A new image was pulled under this name.
    Downloaded(String),
    /// The image was here already.
    UpToDate(String),
    /// An archive gave this image ("Loaded image: name", or "Loaded image ID: sha256:…").
    Loaded(String),
}

impl Status {
    /// Docker's words for it.
    pub fn text(&self) -> String {
        match self {
            Self::PullingFrom(repository) => format!("Pulling from {repository}"),
            Self::PullingLayer => "Pulling fs layer".into(),
            Self::AlreadyExists => "Already exists".into(),
            Self::Downloading { .. } => "Downloading".into(),
            Self::DownloadingFrom(address) => format!("Downloading from {address}"),
            Self::Loading { .. } => "Loading layer".into(),
            Self::PushingTo(repository) => format!("The push refers to repository [{repository}]"),
            Self::Preparing => "Preparing".into(),
            Self::Pushing { .. } => "Pushing".into(),
            Self::Pushed => "Pushed".into(),
            Self::LayerExists => "Layer already exists".into(),
            Self::MountedFrom(repository) => format!("Mounted from {repository}"),
            Self::PushDone { tag, digest, size } => format!("{tag}: digest: {digest} size: {size}"),
            Self::Retrying { seconds } => {
                format!("Retrying in {seconds} second{}", if *seconds == 1 { "" } else { "s" })
            }
            Self::PullComplete => "Pull complete".into(),
            Self::Digest(digest) => format!("Digest: {digest}"),
            Self::Downloaded(name) => format!("Status: Downloaded newer image for {name}"),
            Self::UpToDate(name) => format!("Status: Image is up to date for {name}"),
            Self::Loaded(name) if name.starts_with("sha256:") => format!("Loaded image ID: {name}"),
            Self::Loaded(name) => format!("Loaded image: {name}"),
        }
    }

    /// Bytes so far and in all, where this state has them.
    pub fn bytes(&self) -> Option<(u64, u64)> {
        match self {
            Self::Downloading { current, total }
            | Self::Loading { current, total }
            | Self::Pushing { current, total } => Some((*current, *total)),
            _ => None,
        }
    }
}
