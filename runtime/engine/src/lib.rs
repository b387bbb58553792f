//! The lifecycles of containers: create, start, stop, restart policies, logs, and recovery after a restart.
//! Blocking and thread-safe; the API process calls it from its worker threads.
//!
//! - [`engine`]: the [`Engine`] itself, its start and what it knows
//! - [`error`]: why a request failed
//! - [`cancel`]: how a caller leaves a blocking call
//! - [`output`]: what readers of logs and attached clients get
#![forbid(unsafe_code)]

pub mod cancel;
mod clock;
pub mod engine;
pub mod error;
mod log;
pub mod output;
mod stdin;

pub use cancel::Cancel;
pub use engine::{Counts, Engine, Options, WaitCondition, Waiter};
pub use error::Error;
pub use output::{AttachOptions, Attachment, Frame, LogOptions, LogReader, StdinWriter, Stream};
