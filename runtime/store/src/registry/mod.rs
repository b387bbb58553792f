//! Images pulled from registries and pushed to them (OCI distribution spec 1.1, Docker Registry HTTP API V2).
//!
//! - `blob`: a blob's stream that goes on after a broken connection
//! - `challenge`: `WWW-Authenticate`, read
//! - `client`: one repository: requests, errors
//! - `credentials`: what a registry asks for before it answers; logins
//! - [`look`]: looking without pulling; search
//! - `pull`, `push`: the whole of both
//! - `signature`: signatures as cosign makes them
//! - `upload`: one blob brought into a repository
//! - `workers`: a few layers at a time

mod blob;
mod challenge;
mod client;
pub mod credentials;
pub mod look;
pub mod pull;
pub mod push;
pub(crate) mod signature;
mod upload;
mod workers;
