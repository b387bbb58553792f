//! Links, addresses, routes and resolver configuration of the host.
//!
//! One thread waits for packets of every link's DHCP socket, for changes of links, and for the next deadline.
//!
//! - [`dhcp`]: the client's state machine, its messages, its socket
//! - `links`: which links are the host's own, and their state
//! - `netlink`: what is asked of the kernel
//! - `resolv`: the resolver configuration
//! - `service`: the loop that holds it together

pub mod dhcp;
mod links;
mod netlink;
mod resolv;
mod service;

use anyhow::Context as _;
use keel_link::{bus, control};

/// Configures the network and keeps it configured for as long as the host runs.
pub fn run() -> anyhow::Result<()> {
    let settings = bus::settings().context("cannot learn the settings")?;
    let control = control::Client::connect()?;
    service::Service::new(&settings, Some(control))?.run()
}

/// Configures the network of this namespace with DHCP, without PID 1 and the provisioning service: for tests.
#[doc(hidden)]
pub fn run_alone(settings: &keel_spec::config::Settings, resolv_conf: &std::path::Path) -> anyhow::Result<()> {
    service::Service::new(settings, None)?.with_resolv_conf(resolv_conf).virtual_links_too().run()
}
