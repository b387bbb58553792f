//! Containers that should run: `GET /keel/v1/containers`.

use serde::{Deserialize, Serialize};

/// A container that should run: its restart policy is `always` or `unless-stopped`, it has run before, and nobody
/// stopped it. Or the machine config declares it, and it couldn't be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpectedContainer {
    /// Its ID; empty: it isn't made.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What is wrong with it, in words; `None`: it is up, and healthy where that is checked.
    pub problem: Option<String>,
    /// When this run began, milliseconds since the Unix epoch; another one is another run.
    pub started_unix_ms: Option<u64>,
}
