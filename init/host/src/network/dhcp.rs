//! A DHCP client (RFC 2131) for one link.
//!
//! - [`machine`]: the state machine, pure
//! - [`message`]: packets from and to bytes, pure
//! - `socket`: the UDP socket

pub mod machine;
pub mod message;
pub(super) mod socket;
