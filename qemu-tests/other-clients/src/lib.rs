//! Other people's clients of the Docker Engine API, and what each is asked to do: the same on a workstation's daemon
//! (`runtime/api/tests`) and on a whole machine (`qemu-tests`).
//!
//! - [`compose`]: `docker-compose`, which leads a project
//! - [`library`]: the Rust library Bollard
//! - [`sdk`]: Docker's Python SDK
//! - [`tls`]: Bollard's way to a machine
#![forbid(unsafe_code)]

pub mod compose;
pub mod library;
pub mod sdk;
pub mod tls;
