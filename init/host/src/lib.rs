//! The small services of a host, each a verb of one program and a supervised process of its own.
//!
//! - [`network`]: links, addresses, routes, resolver configuration; DHCP
//! - [`program`]: the command line
//! - [`provision`]: the state partition grows, the machine config comes into force
//! - [`time`]: the clock follows NTP servers
//! - `sys`: the ioctls and system calls that have no safe wrapper
#![deny(unsafe_code)]

pub mod network;
pub mod program;
pub mod provision;
mod sys;
pub mod time;
