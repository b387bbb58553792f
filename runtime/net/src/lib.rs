//! Container networks: a bridge with address translation and published ports, over netlink alone.
//!
//! - [`Net`]: attaches and detaches containers
//! - `firewall`: translation and forwarding rules
//! - `ipam`: which addresses and ports are whose, and its durable state
//! - `link`: interfaces, addresses, routes
//! - `netlink`: messages and sockets
//! - `types`: endpoints and published ports
#![forbid(unsafe_code)]

mod error;
mod firewall;
mod ipam;
mod link;
mod net;
mod netlink;
mod types;

pub use error::Error;
pub use net::Net;
pub use types::{Endpoint, PortMap, Proto};
