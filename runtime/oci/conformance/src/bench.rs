//! Time and memory of a container's life, side by side for several runtimes.

use anyhow::Result;
use serde_json::Value;

use crate::lab::Runtime;
use crate::run::Place;

/// Measures.
pub(crate) fn run(_place: &Place, _runtimes: &[Runtime], _rounds: u32) -> Result<Value> {
    anyhow::bail!("not yet")
}
