//! What an install would do: `POST /keel/v1/update/plan` with an [`InstallRequest`](super::InstallRequest).

use serde::{Deserialize, Serialize};

use crate::release::Version;

/// What an install would do. That there is an answer means that it would not be refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdatePlan {
    /// Running release.
    pub running: Version,
    /// The release that would be installed.
    pub version: Version,
    /// The slot that it would go to; empty: it is there already, and only has to be offered.
    pub slot: String,
    /// Bytes that would come over the network, without those of short gaps that are fetched along.
    pub fetch_bytes: u64,
    /// Bytes that are on the disk already.
    pub copy_bytes: u64,
    /// Bytes that would be written.
    pub write_bytes: u64,
    /// UKIs that would be removed first.
    pub remove: Vec<String>,
    /// Whether an install of this release was stopped, and would go on.
    pub resume: bool,
    /// Where it has to fit.
    pub room: Vec<Room>,
}

/// A place on the disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Label of the partition.
    pub partition: String,
    /// Bytes that are needed.
    pub needs_bytes: u64,
    /// Bytes that there are.
    pub has_bytes: u64,
    /// Bytes of the partition that is made in its place, elsewhere on the disk, if the install does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_to_bytes: Option<u64>,
}
