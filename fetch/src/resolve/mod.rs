//! Names to addresses over DNS, without the C library, whose resolver doesn't work in a static program.
//!
//! - `config`: resolv.conf(5) and hosts(5)
//! - `exchange`: one name server asked, over UDP and where needed TCP
//! - `wire`: questions written and answers read (RFC 1035)
//!
//! Search domains are ignored: every name is taken as complete.

mod config;
mod exchange;
mod wire;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keel_spec::paths;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use crate::connect::Step;

/// Port of DNS.
const DNS_PORT: u16 = 53;
/// Times that the list of name servers is gone through.
const ROUNDS: usize = 2;
/// Longest wait for one server in one round.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses taken for one name; as many as ureq keeps.
pub const MAX_ADDRESSES: usize = 16;
/// Answers remembered.
const MAX_CACHED: usize = 32;
/// Longest time that an answer is remembered, whatever its TTL.
const MAX_TTL: Duration = Duration::from_secs(60);
/// Time for a lookup whose caller sets none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a name has no address.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of name servers can't be read.
    #[error("can't read the list of name servers {}", path.display())]
    Config {
        /// File.
        path: PathBuf,
        /// Reason.
        #[source]
        source: std::io::Error,
    },
    /// There is no name server to ask.
    #[error("{} names no name server; is the network up?", path.display())]
    NoServers {
        /// File.
        path: PathBuf,
    },
    /// Not a host name (RFC 1123).
    #[error("{name:?} is not a host name")]
    BadName {
        /// The name.
        name: String,
    },
    /// A name server says that the name doesn't exist.
    #[error("name server {server} says that {name} doesn't exist")]
    NoSuchName {
        /// The name.
        name: String,
        /// The server.
        server: SocketAddr,
    },
    /// The name exists but has no address.
    #[error("name server {server} knows no address for {name}")]
    NoAddress {
        /// The name.
        name: String,
        /// The server.
        server: SocketAddr,
    },
    /// No server gave a usable answer.
    #[error("no name server answered for {name}: {tried}")]
    NoAnswer {
        /// The name.
        name: String,
        /// Each server with what went wrong, the last round.
        tried: String,
    },
}

impl Error {
    /// Whether asking again a little later may help.
    pub fn is_transient(&self) -> bool {
        !matches!(self, Self::BadName { .. } | Self::NoSuchName { .. })
    }
}

struct Cached {
    name: String,
    addresses: Vec<IpAddr>,
    until: Instant,
}

/// A resolver with a small memory. Reads its files anew for each name that it has to ask for.
#[derive(Clone)]
pub struct Names {
    resolv_conf: PathBuf,
    hosts: PathBuf,
    port: u16,
    cache: Arc<Mutex<Vec<Cached>>>,
}

impl Default for Names {
    fn default() -> Self {
        Self::new(paths::RESOLV_CONF.into(), "/etc/hosts".into())
    }
}

impl Names {
    /// A resolver with the servers of `resolv_conf` and the names of `hosts` (which needn't exist).
    pub fn new(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        Self { resolv_conf, hosts, port: DNS_PORT, cache: Arc::default() }
    }

    /// Addresses of a host, IPv4 first (a host of ours always has IPv4 and seldom a way out by IPv6), never
    /// none, at most [`MAX_ADDRESSES`]. Address literals are returned as they are.
    pub fn lookup(&self, host: &str, timeout: Duration) -> Result<Vec<IpAddr>, Error> {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Ok(vec![address]);
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        if name == "localhost" || name.ends_with(".localhost") {
            // RFC 6761 section 6.3: never asked for.
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        let query = wire::Name::new(&name).ok_or_else(|| Error::BadName { name: host.into() })?;
        let known = std::fs::read(&self.hosts).map(|text| config::known(&text, &name)).unwrap_or_default();
        if !known.is_empty() {
            return Ok(known);
        }
        if let Some(addresses) = self.remembered(&name) {
            return Ok(addresses);
        }
        let (addresses, ttl) = self.ask(&name, &query, Instant::now() + timeout)?;
        self.remember(&name, &addresses, ttl.min(MAX_TTL));
        Ok(addresses)
    }

    fn ask(&self, name: &str, query: &wire::Name, deadline: Instant) -> Result<(Vec<IpAddr>, Duration), Error> {
        let text = std::fs::read(&self.resolv_conf)
            .map_err(|source| Error::Config { path: self.resolv_conf.clone(), source })?;
        let servers = config::servers(&text);
        if servers.is_empty() {
            return Err(Error::NoServers { path: self.resolv_conf.clone() });
        }
        let mut tried = Vec::new();
        for round in 0..ROUNDS {
            tried.clear();
            for address in &servers {
                let server = SocketAddr::new(*address, self.port);
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    tried.push(format!("{server}: no time left in round {}", round + 1));
                    continue;
                }
                match exchange::ask(server, query, left.min(SERVER_TIMEOUT)) {
                    Ok(wire::Answer::Found { addresses, ttl }) => return Ok((addresses, ttl)),
                    Ok(wire::Answer::NoSuchName) => return Err(Error::NoSuchName { name: name.into(), server }),
                    Ok(wire::Answer::NoAddress) => return Err(Error::NoAddress { name: name.into(), server }),
                    Err(reason) => tried.push(format!("{server}: {reason}")),
                }
            }
        }
        Err(Error::NoAnswer { name: name.into(), tried: tried.join(", ") })
    }

    fn remembered(&self, name: &str) -> Option<Vec<IpAddr>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        cache.retain(|entry| entry.until > now);
        cache.iter().find(|entry| entry.name == name).map(|entry| entry.addresses.clone())
    }

    fn remember(&self, name: &str, addresses: &[IpAddr], ttl: Duration) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.retain(|entry| entry.name != name);
        if cache.len() >= MAX_CACHED {
            cache.remove(0);
        }
        cache.push(Cached { name: name.into(), addresses: addresses.into(), until: Instant::now() + ttl });
    }
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("resolv_conf", &self.resolv_conf).finish_non_exhaustive()
    }
}

/// [`Names`] as ureq calls it.
#[derive(Debug)]
pub(crate) struct DnsResolver(Names);

impl DnsResolver {
    pub(crate) fn new(resolv_conf: PathBuf, hosts: PathBuf) -> Self {
        Self(Names::new(resolv_conf, hosts))
    }
}

impl Resolver for DnsResolver {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let timeout = if timeout.after.is_not_happening() { DEFAULT_TIMEOUT } else { *timeout.after };
        let mut found = self.empty();
        for address in self.0.lookup(host, timeout).map_err(Step::Resolve)?.into_iter().take(MAX_ADDRESSES) {
            found.push(SocketAddr::new(address, port));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests;
