//! How host programs reach each other.
//!
//! - [`bus`]: D-Bus, peer to peer, over sockets under `/run/keel/`
//! - [`control`]: PID 1's control socket
//! - [`logger`]: log lines on standard error, which PID 1 collects
#![deny(unsafe_code)]

pub mod bus;
pub mod control;
pub mod logger;
