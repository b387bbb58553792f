//! Container networks: a bridge with address translation and published ports, over netlink alone.
//!
//! - [`Net`]: attaches and detaches containers
//! - `types`: endpoints and published ports
#![deny(unsafe_code)]

mod error;
mod net;
mod types;

pub use error::Error;
pub use net::Net;
pub use types::{Endpoint, PortMap, Proto};
