//! Which addresses and ports are whose: pure decisions, and their durable state.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::types::{Endpoint, Proto};

/// Networks to choose from, in this order.
pub(crate) const CANDIDATES: [Subnet; 5] = [
    Subnet { base: Ipv4Addr::new(172, 20, 0, 0), prefix: 16 },
    Subnet { base: Ipv4Addr::new(172, 28, 0, 0), prefix: 16 },
    Subnet { base: Ipv4Addr::new(10, 88, 0, 0), prefix: 16 },
    Subnet { base: Ipv4Addr::new(192, 168, 240, 0), prefix: 20 },
    Subnet { base: Ipv4Addr::new(100, 72, 0, 0), prefix: 16 },
];

/// Ports that one is chosen from (RFC 6335's dynamic range, but for its first, 49152).
const CHOSEN_PORTS: std::ops::RangeInclusive<u16> = 49153..=65535;

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subnet {
    pub base: Ipv4Addr,
    pub prefix: u8,
}

impl Subnet {
    pub(crate) fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0)
    }

    /// The bridge's own address: the first.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.base) + 1)
    }

    fn overlaps(self, base: Ipv4Addr, prefix: u8) -> bool {
        let mask = self.mask() & Subnet { base, prefix }.mask();
        u32::from(self.base) & mask == u32::from(base) & mask
    }
}

/// The first network that the host's routes don't overlap.
pub(crate) fn choose_subnet(candidates: &[Subnet], routes: &[(Ipv4Addr, u8)]) -> Option<Subnet> {
    candidates.iter().copied().find(|s| !routes.iter().any(|(base, prefix)| s.overlaps(*base, *prefix)))
}

/// What is known of all endpoints, as in the state file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    pub subnet: Subnet,
    /// Host part after the one given last: an address isn't given again while neighbours may remember its owner.
    next: u32,
    pub endpoints: BTreeMap<String, Endpoint>,
}

impl State {
    pub(crate) fn new(subnet: Subnet) -> Self {
        Self { subnet, next: 2, endpoints: BTreeMap::new() }
    }

    /// A free address.
    pub(crate) fn free_address(&mut self) -> Result<Ipv4Addr, Error> {
        let taken: HashSet<Ipv4Addr> = self.endpoints.values().map(|e| e.ip).collect();
        let last = (!self.subnet.mask()).saturating_sub(1);
        for _ in 2..=last {
            let host = if (2..=last).contains(&self.next) { self.next } else { 2 };
            self.next = host + 1;
            let ip = Ipv4Addr::from(u32::from(self.subnet.base) + host);
            if !taken.contains(&ip) {
                return Ok(ip);
            }
        }
        Err(Error::Exhausted("address"))
    }

    /// The container that publishes a port of the host already, on the same or on all addresses.
    pub(crate) fn publisher(&self, proto: Proto, host_ip: Option<std::net::IpAddr>, port: u16) -> Option<&str> {
        let clash = |other: Option<std::net::IpAddr>| host_ip.is_none() || other.is_none() || host_ip == other;
        let found = self
            .endpoints
            .iter()
            .find(|(_, e)| e.ports.iter().any(|p| p.proto == proto && p.host_port == port && clash(p.host_ip)));
        found.map(|(id, _)| id.as_str())
    }

    /// A port of the host that no container publishes and `is_free` agrees to.
    pub(crate) fn free_port(&self, proto: Proto, is_free: impl Fn(u16) -> bool) -> Result<u16, Error> {
        CHOSEN_PORTS
            .into_iter()
            .find(|port| self.publisher(proto, None, *port).is_none() && is_free(*port))
            .ok_or(Error::Exhausted("port"))
    }
}

/// The Ethernet address of an endpoint: locally administered, and the same whenever it has the same address, so that
/// neighbours' caches never mislead.
pub(crate) fn mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x02, 0x6b, a, b, c, d]
}

/// The state's file.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    file: PathBuf,
}

impl Store {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: folder.join("endpoints.json") }
    }

    /// Reads the state; one that can't be understood is moved aside, and `None` is as if there were none.
    pub(crate) fn read(&self) -> Result<Option<State>, Error> {
        let bytes = match std::fs::read(&self.file) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(self.error("read")(e)),
        };
        match serde_json::from_slice::<State>(&bytes) {
            Ok(state) if (8..=30).contains(&state.subnet.prefix) => Ok(Some(state)),
            other => {
                let why = other.err().map_or("impossible network".to_owned(), |e| e.to_string());
                log::warn!("{} is damaged ({why}): moved aside, starting afresh", self.file.display());
                std::fs::rename(&self.file, self.folder.join("endpoints.json.damaged"))
                    .map_err(self.error("move aside"))?;
                Ok(None)
            }
        }
    }

    /// Writes the state so that a loss of power leaves the old one or the new one.
    pub(crate) fn write(&self, state: &State) -> Result<(), Error> {
        let bytes = serde_json::to_vec(state).map_err(|e| self.error("encode")(e.into()))?;
        let temporary = self.folder.join("endpoints.json.new");
        std::fs::create_dir_all(&self.folder).map_err(self.error("make the folder"))?;
        let write = || {
            let mut file = std::fs::File::create(&temporary)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.file)?;
            std::fs::File::open(&self.folder)?.sync_all()
        };
        write().map_err(self.error("write"))
    }

    fn error(&self, step: &'static str) -> impl FnOnce(io::Error) -> Error {
        let path = self.file.clone();
        move |source| Error::State { path, step, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(ip: Ipv4Addr) -> Endpoint {
        Endpoint { ip, prefix: 29, gateway: ip, mac: mac(ip), ports: vec![] }
    }

    #[test]
    fn addresses_run_out_by_name_and_come_back() {
        let mut state = State::new(Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 29 });
        for i in 2..=6 {
            let ip = state.free_address().unwrap();
            assert_eq!(ip, Ipv4Addr::new(10, 0, 0, i));
            state.endpoints.insert(i.to_string(), endpoint(ip));
        }
        assert!(matches!(state.free_address(), Err(Error::Exhausted("address"))));
        state.endpoints.remove("4");
        assert_eq!(state.free_address().unwrap(), Ipv4Addr::new(10, 0, 0, 4));
    }

    #[test]
    fn a_network_that_the_host_uses_is_passed_over() {
        let routes = [(Ipv4Addr::new(172, 16, 0, 0), 12), (Ipv4Addr::new(10, 88, 7, 0), 24)];
        assert_eq!(choose_subnet(&CANDIDATES, &routes), Some(CANDIDATES[3]));
        assert_eq!(choose_subnet(&CANDIDATES, &[]), Some(CANDIDATES[0]));
    }

    #[test]
    fn a_torn_file_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        store.write(&State::new(CANDIDATES[0])).unwrap();
        assert_eq!(store.read().unwrap().unwrap().subnet, CANDIDATES[0]);
        let bytes = std::fs::read(&store.file).unwrap();
        std::fs::write(&store.file, &bytes[..bytes.len() / 2]).unwrap();
        assert!(store.read().unwrap().is_none());
        assert!(dir.path().join("endpoints.json.damaged").exists() && !store.file.exists());
    }
}
