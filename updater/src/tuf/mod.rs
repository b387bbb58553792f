//! A client of The Update Framework (specification 1.0.x), on ring.
//!
//! - [`client`]: the workflow of section 5: fetches, in order, and stores what was accepted
//! - [`digests`]: lengths and digests that one file promises of another
//! - [`download`]: whole targets into a folder
//! - [`error`]: why metadata was refused, with the file and the kind of failure
//! - [`keys`]: public keys and thresholds
//! - [`store`]: accepted metadata on disk
//! - [`trusted`]: the pure part of the workflow: bytes in, trust or refusal out
pub mod client;
pub mod digests;
pub mod download;
pub mod error;
pub mod keys;
pub mod store;
pub mod trusted;

pub use client::Client;
pub use error::{Error, Problem};
pub use trusted::TrustedSet;
