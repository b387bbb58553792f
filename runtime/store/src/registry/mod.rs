//! Images pulled from registries (OCI distribution spec 1.1, Docker Registry HTTP API V2).
//!
//! - `blob`: a blob's stream that goes on after a broken connection
//! - `challenge`: `WWW-Authenticate`, read
//! - `client`: one registry: requests, credentials, errors
//! - `pull`: the whole pull

mod blob;
mod challenge;
mod client;
pub mod pull;
