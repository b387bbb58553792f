//! Links, addresses, routes and resolver configuration of the host.

/// Runs the service.
pub fn run() -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
