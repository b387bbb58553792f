//! A small blocking HTTP(S) client for host programs: no libc resolver, no total time-out, but a cap on everything else.
//!
//! - [`auth`]: values of the `Authorization` header
//! - [`client`]: one request with its redirects, under the caps of its caller
//! - [`connect`]: the chain that makes a connection, with errors that say which step failed
//! - [`error`]: what can go wrong; every message names the address
//! - `forward`: requests to a proxy in the form that it wants
//! - [`message`]: requests and responses
//! - [`multipart`]: several ranges in one answer
//! - [`proxy`]: which requests go through a proxy
//! - [`range`]: `Range` and `Content-Range`
//! - [`resolve`]: names to addresses over DNS, without the C library
//! - [`steady`]: a least rate of what comes over a connection
//! - [`tls`]: trust anchors, read when the first https request needs them
//! - [`url`]: addresses: checked, joined, and shown without secrets
#![forbid(unsafe_code)]

pub mod auth;
pub mod client;
mod connect;
pub mod error;
mod forward;
pub mod message;
pub mod multipart;
pub mod proxy;
pub mod range;
pub mod resolve;
mod steady;
mod tls;
mod url;

pub use client::{Client, Options};
pub use error::Error;
pub use message::{Body, Method, Request, Response};
pub use proxy::Proxies;
pub use steady::LeastRate;
pub use url::{is_same_origin, resolve_location};
