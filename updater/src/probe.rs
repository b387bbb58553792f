//! The health checks of the machine config.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use keel_fetch::resolve::Names;
use keel_fetch::{Client, Options, Request};
use keel_spec::config::{HealthCheck, Probe};
use keel_spec::paths;

use crate::failure::chain;

/// Longest time for one step of a check.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most bytes of an answer that are of interest: none, but a server may send some.
const MAX_BODY_BYTES: u64 = 1 << 20;

/// Runs all checks; returns what is wrong.
pub fn wrong(checks: &[HealthCheck]) -> Vec<String> {
    let failed = |check: &HealthCheck| {
        let outcome = match &check.probe {
            Probe::Http(url) => http(url),
            Probe::Tcp(address) => tcp(address),
        };
        outcome.err().map(|why| format!("health check {} not good ({why})", check.name))
    };
    checks.iter().filter_map(failed).collect()
}

fn http(url: &str) -> Result<(), String> {
    let options = Options { connect_timeout: TIMEOUT, idle_timeout: TIMEOUT, ..Options::default() };
    let client = Client::new(options).map_err(|error| chain(&error))?;
    let response = client.get(&Request::new(url, MAX_BODY_BYTES)).map_err(|error| chain(&error))?;
    match response.status {
        200..=399 => Ok(()),
        status => Err(format!("{url} answers {status}")),
    }
}

fn tcp(address: &str) -> Result<(), String> {
    let addresses = match address.parse::<SocketAddr>() {
        Ok(address) => vec![address],
        Err(_) => resolve(address)?,
    };
    let mut last = format!("{address} has no address");
    for candidate in addresses {
        match TcpStream::connect_timeout(&candidate, TIMEOUT) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("connect to {address}: {error}"),
        }
    }
    Err(last)
}

fn resolve(address: &str) -> Result<Vec<SocketAddr>, String> {
    let parts = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let (host, port) = parts.ok_or_else(|| format!("{address} is not HOST:PORT"))?;
    let names = Names::new(paths::RESOLV_CONF.into(), "/etc/hosts".into());
    let found = names.lookup(host, TIMEOUT).map_err(|error| chain(&error))?;
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}
