//! What is known of networks and of containers' places in them, and its durable file.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::cidr::Cidr;
use crate::network::{self, Driver, Network};
use crate::types::{Endpoint, Sandbox};

/// Longest state file that is read.
const MAX_BYTES: u64 = 64 << 20;

/// What is known. The networks are kept durably; of containers' places nothing survives the host's next start, so that
/// file only has to survive this program. Fields are only ever added, each with a default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// The host's own bits of unique local IPv6 addresses.
    pub local_bits: [u8; 5],
    /// All networks.
    pub networks: Vec<Network>,
    /// Containers that run, by their IDs.
    #[serde(skip)]
    pub sandboxes: BTreeMap<String, Sandbox>,
    /// Port after the one that was chosen last.
    #[serde(skip)]
    pub next_port: u16,
}

impl State {
    /// The network that `wanted` names: a name, an ID, or the beginning of an ID.
    pub(crate) fn find(&self, wanted: &str) -> Result<&Network, Error> {
        let exact = |network: &&Network| network.id == wanted || network.name == wanted;
        if let Some(network) = self.networks.iter().find(exact) {
            return Ok(network);
        }
        let mut matches = self.networks.iter().filter(|n| !wanted.is_empty() && n.id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            (Some(network), None) => Ok(network),
            (Some(_), Some(_)) => {
                Err(Error::Invalid(format!("network {wanted} is ambiguous: several IDs begin with it")))
            }
            (None, _) => Err(Error::NotFound(format!("network {wanted:.140} not found"))),
        }
    }

    pub(crate) fn by_id(&self, id: &str) -> Option<&Network> {
        self.networks.iter().find(|network| network.id == id)
    }

    /// A network to change.
    pub(crate) fn by_id_mut(&mut self, id: &str) -> Option<&mut Network> {
        self.networks.iter_mut().find(|network| network.id == id)
    }

    /// The containers in a network.
    pub(crate) fn members<'a>(&'a self, network: &'a str) -> impl Iterator<Item = (&'a str, &'a Endpoint)> {
        self.sandboxes.iter().flat_map(move |(id, sandbox)| {
            let inside = sandbox.endpoints.iter().filter(move |endpoint| endpoint.network == network);
            inside.map(|endpoint| (id.as_str(), endpoint))
        })
    }

    /// The addresses that a network's containers have.
    pub(crate) fn addresses(&self, network: &str) -> HashSet<IpAddr> {
        let both = |e: &Endpoint| [Some(IpAddr::from(e.ip)), e.ip6.map(IpAddr::from)];
        self.members(network).flat_map(|(_, endpoint)| both(endpoint)).flatten().collect()
    }

    /// The ranges of all networks.
    pub(crate) fn subnets(&self) -> Vec<Cidr> {
        self.networks.iter().flat_map(|network| &network.pools).map(|pool| pool.subnet).collect()
    }

    /// All networks with a bridge.
    pub(crate) fn bridges(&self) -> impl Iterator<Item = &Network> {
        self.networks.iter().filter(|network| network.driver == Driver::Bridge)
    }

    /// Chooses which endpoint of a container leads out: of those in networks that do, the one of the highest priority,
    /// then that whose network's name comes first. Ports are published to it if that can be.
    pub(crate) fn aim(&self, sandbox: &mut Sandbox) {
        let mut leading: Vec<(&Endpoint, &Network)> = sandbox
            .endpoints
            .iter()
            .filter_map(|endpoint| Some((endpoint, self.by_id(&endpoint.network)?)))
            .filter(|(endpoint, network)| !network.internal && leads_out(endpoint, network))
            .collect();
        leading.sort_by_key(|(endpoint, network)| (std::cmp::Reverse(endpoint.priority), network.name.clone()));
        let first = leading.first();
        let outward = first.map(|(endpoint, _)| endpoint.id.clone());
        let bridged = first.is_some_and(|(_, network)| network.driver == Driver::Bridge);
        sandbox.published = outward.clone().filter(|_| bridged);
        sandbox.outward = outward;
    }
}

/// ipvlan in its routed modes needs no gateway to lead out.
fn leads_out(endpoint: &Endpoint, network: &Network) -> bool {
    endpoint.gateway.is_some() || endpoint.gateway6.is_some() || network.driver == Driver::Ipvlan
}

/// The state's files.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn networks(&self) -> PathBuf {
        self.folder.join("networks.json")
    }

    fn sandboxes(&self) -> PathBuf {
        self.folder.join("sandboxes.json")
    }

    /// Reads the state; what can't be understood is moved aside, and `None` is as if there were none.
    pub(crate) fn read(&self) -> Result<Option<State>, Error> {
        let path = self.networks();
        let stored = keel_durable::read_json::<State>(&path, MAX_BYTES).map_err(error(&path, "read"))?;
        let Some(mut state) = stored.value().filter(is_whole) else { return Ok(None) };
        let path = self.sandboxes();
        let stored = keel_durable::read_json(&path, MAX_BYTES).map_err(error(&path, "read"))?;
        state.sandboxes = stored.value().unwrap_or_default();
        Ok(Some(state))
    }

    /// The default network's range as releases before kept it, in a file of its own.
    pub(crate) fn range_before(&self) -> Option<Cidr> {
        #[derive(Deserialize)]
        struct Subnet {
            base: std::net::Ipv4Addr,
            prefix: u8,
        }
        #[derive(Deserialize)]
        struct Before {
            subnet: Subnet,
        }
        let bytes = keel_durable::read(&self.folder.join("endpoints.json"), MAX_BYTES).ok()??;
        let Before { subnet } = serde_json::from_slice(&bytes).ok()?;
        Cidr::around(subnet.base.into(), subnet.prefix).filter(|range| (8..=30).contains(&range.prefix()))
    }

    /// Writes the networks so that a loss of power leaves the old ones or the new ones.
    pub(crate) fn write_networks(&self, state: &State) -> Result<(), Error> {
        std::fs::create_dir_all(&self.folder).map_err(error(&self.folder, "make the folder"))?;
        let path = self.networks();
        keel_durable::write_json(&path, state).map_err(error(&path, "write"))
    }

    /// Writes containers' places so that the end of this program leaves the old ones or the new ones.
    pub(crate) fn write_sandboxes(&self, state: &State) -> Result<(), Error> {
        let path = self.sandboxes();
        let bytes = serde_json::to_vec(&state.sandboxes).map_err(|e| error(&path, "encode")(e.into()))?;
        keel_durable::write_volatile(&path, &bytes).map_err(error(&path, "write"))
    }
}

fn error(path: &Path, step: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::State { path, step, source }
}

/// Whether the networks that are always there are, with ranges.
fn is_whole(state: &State) -> bool {
    let has_ranges = |network: &Network| network.driver != Driver::Bridge || network.pool(true).is_some();
    network::PREDEFINED.iter().all(|name| state.networks.iter().any(|network| network.name == *name))
        && state.networks.iter().all(has_ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(name: &str, driver: Driver) -> Network {
        let pools = vec![crate::ipam::choose_v4(&[]).unwrap()];
        Network { id: name.repeat(3), name: name.into(), pools, ..Network::empty(driver) }
    }

    #[test]
    fn a_torn_file_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path());
        let networks =
            vec![network("bridge", Driver::Bridge), network("host", Driver::Host), network("none", Driver::Null)];
        let state = State { networks, ..State::default() };
        let state = State { sandboxes: [("c".into(), Sandbox::default())].into(), ..state };
        store.write_networks(&state).unwrap();
        store.write_sandboxes(&state).unwrap();
        assert_eq!(store.read().unwrap().unwrap(), state);
        std::fs::write(store.sandboxes(), "{").unwrap();
        assert!(store.read().unwrap().unwrap().sandboxes.is_empty());
        let bytes = std::fs::read(store.networks()).unwrap();
        std::fs::write(store.networks(), &bytes[..bytes.len() / 2]).unwrap();
        assert!(store.read().unwrap().is_none());
        assert!(dir.path().join("networks.json.unreadable").exists() && !store.networks().exists());
    }

    #[test]
    fn what_a_release_before_chose_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"subnet":{"base":"10.88.0.0","prefix":16},"next":7,"endpoints":{}}"#;
        std::fs::write(dir.path().join("endpoints.json"), text).unwrap();
        assert_eq!(Store::new(dir.path()).range_before().unwrap().to_string(), "10.88.0.0/16");
    }

    #[test]
    fn networks_are_found_by_name_id_and_a_part_of_it() {
        let state =
            State { networks: vec![network("ab", Driver::Bridge), network("abc", Driver::Bridge)], ..State::default() };
        assert_eq!(state.find("ab").unwrap().name, "ab");
        assert_eq!(state.find("aba").unwrap().name, "ab");
        assert!(matches!(state.find("a"), Err(Error::Invalid(_))));
        assert!(matches!(state.find(""), Err(Error::NotFound(_))));
        assert!(matches!(state.find("x"), Err(Error::NotFound(_))));
    }
}
