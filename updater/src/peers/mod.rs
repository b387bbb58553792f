//! The running release, served to peers: a host in the place of a mirror.
//!
//! Only targets are served, never metadata: whoever fetches them has verified metadata from the repository itself and
//! checks every block against these. So nobody has to trust a peer, and plain HTTP is enough.
//!
//! What is served is what is on the disk: root and tree from the running slot, the UKI from the EFI system partition;
//! nothing is kept twice. It is offered once the release has proved itself, if the metadata last accepted list it.
//! Everything here only reads, on threads of its own; their number, what they hold and how long they wait have caps.
//!
//! - [`offer`]: the release's files, found on the disk
//! - [`ranges`]: which bytes of a file are asked for, and the heads of answers
//! - [`request`]: requests as bytes
//! - [`server`]: its connections, and how long they are waited for
pub mod offer;
pub mod ranges;
pub mod request;
pub mod server;

pub use offer::{Offer, Opened};
pub use server::{Peers, Server};
