//! Which names containers are found under, and by whom.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::wire::{Answer, Kind, Question};
use crate::network::Network;
use crate::state::State;
use crate::types::{Endpoint, Sandbox};

/// All names, as they are at one moment.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    networks: HashMap<String, Names>,
    containers: HashMap<String, View>,
}

/// The names of one network.
#[derive(Debug, Default)]
struct Names {
    name: String,
    /// Addresses by name, in lower case.
    forward: HashMap<String, Vec<IpAddr>>,
    /// Names by address.
    reverse: HashMap<IpAddr, String>,
}

/// What one container sees.
#[derive(Debug, Default)]
struct View {
    networks: Vec<String>,
    links: BTreeMap<String, Vec<IpAddr>>,
    servers: Vec<IpAddr>,
    leads_out: bool,
}

/// Where questions go that no container is the answer to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Elsewhere {
    /// To these servers.
    Servers(Vec<IpAddr>),
    /// To the host's.
    Host,
    /// Nowhere: the container is in internal networks alone, and names could carry data out of them.
    Nowhere,
}

impl Zone {
    /// The names of all networks that have any.
    pub(crate) fn new(state: &State) -> Self {
        let mut zone = Self::default();
        for network in state.networks.iter().filter(|network| network.has_names()) {
            zone.networks.insert(network.id.clone(), names(state, network));
        }
        for (id, sandbox) in &state.sandboxes {
            if has_names(state, sandbox) {
                zone.containers.insert(id.clone(), view(state, sandbox));
            }
        }
        zone
    }

    /// What a container is answered; `None`: no container is meant.
    pub(super) fn answer(&self, container: &str, question: &Question) -> Option<Answer> {
        let view = self.containers.get(container)?;
        let v4 = match question.kind {
            Kind::Name(ip) => {
                let mut networks = view.networks.iter().filter_map(|id| self.networks.get(id));
                return networks.find_map(|n| Some(Answer::Name(format!("{}.{}", n.reverse.get(&ip)?, n.name))));
            }
            Kind::V4 => true,
            Kind::V6 => false,
            // A name of ours has nothing else, and is nobody else's.
            Kind::Other => return self.find(view, &question.name).map(|_| Answer::Addresses(Vec::new())),
        };
        let found = self.find(view, &question.name)?;
        Some(Answer::Addresses(found.iter().filter(|ip| ip.is_ipv4() == v4).copied().collect()))
    }

    fn find<'a>(&'a self, view: &'a View, name: &str) -> Option<&'a Vec<IpAddr>> {
        if let Some(addresses) = view.links.get(name) {
            return Some(addresses);
        }
        view.networks.iter().filter_map(|id| self.networks.get(id)).find_map(|network| {
            let bare = || name.strip_suffix(&network.name.to_ascii_lowercase())?.strip_suffix('.');
            network.forward.get(name).or_else(|| network.forward.get(bare()?))
        })
    }

    /// Where else a container's questions go.
    pub(super) fn elsewhere(&self, container: &str) -> Elsewhere {
        match self.containers.get(container) {
            Some(view) if view.leads_out && view.servers.is_empty() => Elsewhere::Host,
            Some(view) if view.leads_out => Elsewhere::Servers(view.servers.clone()),
            _ => Elsewhere::Nowhere,
        }
    }
}

/// Whether names are answered for in a container's namespace.
pub(crate) fn has_names(state: &State, sandbox: &Sandbox) -> bool {
    sandbox.endpoints.iter().any(|e| state.by_id(&e.network).is_some_and(Network::has_names))
}

fn addresses(endpoint: &Endpoint) -> impl Iterator<Item = IpAddr> {
    [Some(IpAddr::from(endpoint.ip)), endpoint.ip6.map(IpAddr::from)].into_iter().flatten()
}

fn names(state: &State, network: &Network) -> Names {
    let mut all = Names { name: network.name.clone(), ..Names::default() };
    for (_, endpoint) in state.members(&network.id) {
        for name in &endpoint.names {
            all.forward.entry(name.to_ascii_lowercase()).or_default().extend(addresses(endpoint));
        }
        if let Some(first) = endpoint.names.first() {
            all.reverse.extend(addresses(endpoint).map(|ip| (ip, first.clone())));
        }
    }
    all
}

fn view(state: &State, sandbox: &Sandbox) -> View {
    let named = |endpoint: &&Endpoint| state.by_id(&endpoint.network).is_some_and(Network::has_names);
    let mut links = BTreeMap::new();
    for endpoint in sandbox.endpoints.iter().filter(named) {
        for (alias, other) in &endpoint.links {
            let linked = state.sandboxes.get(other).and_then(|other| other.endpoint(&endpoint.network));
            if let Some(linked) = linked {
                links.entry(alias.to_ascii_lowercase()).or_insert_with(|| addresses(linked).collect());
            }
        }
    }
    View {
        networks: sandbox.endpoints.iter().filter(named).map(|endpoint| endpoint.network.clone()).collect(),
        links,
        servers: sandbox.servers.clone(),
        leads_out: sandbox.outward.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Driver;
    use crate::types::Mac;

    fn network(name: &str) -> Network {
        let text = format!(r#"{{"id":"id-{name}","name":"{name}","driver":"bridge"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    fn sandbox(network: &str, last: u8, names: &[&str]) -> Sandbox {
        let endpoint = Endpoint {
            link_local: Vec::new(),
            id: format!("{network}{last}"),
            network: format!("id-{network}"),
            network_name: network.into(),
            interface: "eth0".into(),
            ip: [10, 1, 0, last].into(),
            prefix: 24,
            gateway: None,
            ip6: None,
            prefix6: 0,
            gateway6: None,
            mac: Mac([2; 6]),
            names: names.iter().map(|name| (*name).into()).collect(),
            links: Vec::new(),
            priority: 0,
        };
        Sandbox { endpoints: vec![endpoint], ..Sandbox::default() }
    }

    fn zone() -> Zone {
        let mut linked = sandbox("one", 3, &["app"]);
        linked.endpoints[0].links = vec![("store".into(), "db".into())];
        linked.outward = Some("one3".into());
        let sandboxes = [
            ("db".to_owned(), sandbox("one", 2, &["Db", "shared"])),
            ("app".to_owned(), linked),
            ("far".to_owned(), sandbox("two", 9, &["far"])),
            ("plain".to_owned(), sandbox("bridge", 7, &[])),
        ];
        let networks = vec![network("one"), network("two"), network("bridge")];
        assert_eq!(networks[0].driver, Driver::Bridge);
        Zone::new(&State { networks, sandboxes: sandboxes.into(), ..State::default() })
    }

    fn ask(container: &str, name: &str, kind: Kind) -> Option<Answer> {
        zone().answer(container, &super::super::wire::tests_question(name, kind))
    }

    #[test]
    fn names_are_found_in_shared_networks_alone() {
        let found = |ip: &str| Some(Answer::Addresses(vec![ip.parse().unwrap()]));
        assert_eq!(ask("app", "db", Kind::V4), found("10.1.0.2"));
        assert_eq!(ask("app", "db.one", Kind::V4), found("10.1.0.2"));
        assert_eq!(ask("app", "store", Kind::V4), found("10.1.0.2"));
        assert_eq!(ask("db", "store", Kind::V4), None, "a link is one container's own");
        assert_eq!(ask("app", "db", Kind::V6), Some(Answer::Addresses(vec![])));
        assert_eq!(ask("app", "far", Kind::V4), None);
        assert_eq!(ask("app", "db.two", Kind::V4), None);
        assert_eq!(ask("plain", "db", Kind::V4), None);
        let back = Kind::Name("10.1.0.2".parse().unwrap());
        assert_eq!(ask("app", "2.0.1.10.in-addr.arpa", back), Some(Answer::Name("Db.one".into())));
        assert_eq!(ask("far", "2.0.1.10.in-addr.arpa", back), None);
    }

    #[test]
    fn questions_leave_only_where_packets_may() {
        assert_eq!(zone().elsewhere("app"), Elsewhere::Host);
        assert_eq!(zone().elsewhere("db"), Elsewhere::Nowhere);
        assert_eq!(zone().elsewhere("nobody"), Elsewhere::Nowhere);
    }
}
