//! Docker's Python SDK (Debian's `python3-docker`).

use std::path::PathBuf;

/// Debian's interpreter, or `KEEL_PYTHON`: another one, with another version of the SDK.
pub fn python() -> String {
    std::env::var("KEEL_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into())
}

/// The script, for a daemon that holds `box:1` and no container. `DOCKER_HOST` and its like say where that is.
pub fn script() -> PathBuf {
    concat!(env!("CARGO_MANIFEST_DIR"), "/sdk.py").into()
}
