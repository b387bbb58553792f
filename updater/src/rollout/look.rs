//! What a look at the repository found.

use keel_spec::release::Version;

/// What a look at the repository found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The newest release that this host may have, now or later.
    pub candidate: Option<Candidate>,
    /// Releases that this host was about to boot, but should no longer, and why.
    pub recalled: Vec<(Version, String)>,
}

/// A release that a host may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its version.
    pub version: Version,
    /// When this host's wave comes, seconds since the Unix epoch; 0 where there are no waves. `None`: not by the
    /// schedule as it is.
    pub wave_unix_s: Option<u64>,
}
