//! Container networks: bridges with address translation and published ports, and links over the host's own, all over
//! netlink alone.
//!
//! - [`Net`] (`net`): its start and what it knows; `attach`: containers come and go; `connect`: they change networks
//!   while they run; `manage`: networks are made and removed
//! - `network`: networks, and what is asked for of one; `types`: endpoints and published ports; `cidr`: ranges
//! - `ipam`, `ports`: which addresses and ports are whose, pure; `state`: all of it, and its durable file
//! - `bridge`, `parent`: a network's part of the host
//! - `inside`: a container's part, in its namespace
//! - `dns`: containers find each other by name
//! - `relay`: published ports on `::1`
//! - `firewall`: translation and forwarding rules
//! - `link`, `route`: interfaces, addresses, routes; `netlink`: messages and sockets
#![forbid(unsafe_code)]

mod attach;
mod bridge;
mod cidr;
mod connect;
mod dns;
mod error;
mod firewall;
mod inside;
mod ipam;
mod link;
mod manage;
mod net;
mod netlink;
mod network;
mod parent;
mod ports;
mod relay;
mod route;
mod state;
mod types;

pub use cidr::Cidr;
pub use error::Error;
pub use net::{Net, set_up_alone};
pub use network::{DEFAULT, Driver, Network, NetworkSpec, PREDEFINED, Pool, PoolSpec};
pub use types::{Endpoint, Mac, PortMap, Proto, Request, Sandbox, Wanted};
