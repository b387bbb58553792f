//! Networks are made, shown and removed, in Docker's words.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::{
    EndpointResource, Ipam, IpamConfig, NetworkCreateRequest, NetworkCreateResponse, NetworkInspect,
};
use keel_net::{Net, Network, NetworkSpec, Pool, PoolSpec};

use crate::clock;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::Subject;
use crate::joining::from_net;

type Filters = HashMap<String, Vec<String>>;

impl Engine {
    /// Makes a network.
    pub fn network_create(&self, asked: NetworkCreateRequest) -> Result<NetworkCreateResponse, Error> {
        let network = self.network.get()?.create(spec(asked)?).map_err(from_net)?;
        ::log::info!("network {} ({}) is made", network.id, network.name);
        self.tell_of_network(&network, "create", &[]);
        Ok(NetworkCreateResponse { id: network.id, warning: String::new() })
    }

    /// All that is known of a network, with the containers that are in it now.
    pub fn network_inspect(&self, wanted: &str) -> Result<NetworkInspect, Error> {
        if !self.network.is_possible() {
            return Err(Error::NotFound(format!("network {wanted:.140} not found")));
        }
        let net = self.network.get()?;
        let network = net.find(wanted).map_err(from_net)?;
        Ok(NetworkInspect { containers: Some(self.resources(&net, &network)), ..shown(network) })
    }

    /// The networks that pass all filters.
    pub fn network_list(&self, filters: &Filters) -> Result<Vec<NetworkInspect>, Error> {
        const KNOWN: [&str; 7] = ["id", "name", "driver", "label", "scope", "type", "dangling"];
        if let Some(unknown) = filters.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(Error::BadParameter(format!("invalid filter '{unknown}'")));
        }
        for value in filters.get("type").into_iter().flatten() {
            if !matches!(value.as_str(), "custom" | "builtin") {
                return Err(Error::BadParameter(format!("invalid filter: 'type'='{value:.60}'")));
            }
        }
        check_dangling(filters)?;
        if !self.network.is_possible() {
            return Ok(Vec::new());
        }
        let net = self.network.get()?;
        let found = net.networks().into_iter().filter(|network| {
            let used = || !net.members(&network.id).is_empty();
            fits(filters, network, &used)
        });
        // Lists show no containers, but clients read the field.
        Ok(found.map(|network| NetworkInspect { containers: Some(HashMap::new()), ..shown(network) }).collect())
    }

    /// Removes a network that no container is in.
    pub fn network_remove(&self, wanted: &str) -> Result<(), Error> {
        let network = self.network.get()?.remove(wanted).map_err(from_net)?;
        ::log::info!("network {} ({}) is removed", network.id, network.name);
        self.tell_of_network(&network, "destroy", &[]);
        Ok(())
    }

    /// Removes all networks of users' own that no container is in: those with all of these labels and none of those,
    /// made before a moment. Their names.
    pub fn network_prune(&self, filters: &Filters, until_unix_ms: Option<u64>) -> Result<Vec<String>, Error> {
        if let Some(unknown) = filters.keys().find(|key| !matches!(key.as_str(), "label" | "label!" | "until")) {
            return Err(Error::BadParameter(format!("invalid filter '{unknown}'")));
        }
        if !self.network.is_possible() {
            return Ok(Vec::new());
        }
        let net = self.network.get()?;
        let mut removed = Vec::new();
        for network in net.networks().into_iter().filter(|network| !network.is_predefined()) {
            let old = until_unix_ms.is_none_or(|until| network.created_unix_ms < until);
            // One that is in use, or has come into use meanwhile, stays.
            if old && labels_fit(filters, &network.labels) && net.remove(&network.id).is_ok() {
                self.tell_of_network(&network, "destroy", &[]);
                removed.push(network.name);
            }
        }
        self.tell_pruned(Subject::Network, 0);
        Ok(removed)
    }

    fn resources(&self, net: &Net, network: &Network) -> HashMap<String, EndpointResource> {
        let members = net.members(&network.id).into_iter();
        let resource = |(id, endpoint): (String, keel_net::Endpoint)| {
            let name = self.get(&id).map(|container| container.config().name.clone());
            let v6 = endpoint.ip6.map(|ip| format!("{ip}/{}", endpoint.prefix6));
            let resource = EndpointResource {
                name,
                mac_address: Some(endpoint.shown_mac()),
                endpoint_id: Some(endpoint.id),
                ipv4_address: Some(format!("{}/{}", endpoint.ip, endpoint.prefix)),
                ipv6_address: Some(v6.unwrap_or_default()),
            };
            (id, resource)
        };
        members.map(resource).collect()
    }
}

/// What was asked for, in the network room's words; what isn't served is refused.
fn spec(asked: NetworkCreateRequest) -> Result<NetworkSpec, Error> {
    let refuse = |what: &str| Err(Error::BadParameter(format!("{what} isn't supported")));
    if asked.ingress == Some(true) || asked.config_only == Some(true) {
        return refuse("a network for swarms, or one that is a configuration only,");
    }
    if asked.config_from.as_ref().is_some_and(|from| from.network.as_ref().is_some_and(|name| !name.is_empty())) {
        return refuse("a network from another's configuration");
    }
    if asked.enable_ipv4 == Some(false) {
        return refuse("a network without IPv4");
    }
    if !matches!(asked.scope.as_deref(), None | Some("" | "local")) {
        return refuse("a scope other than local");
    }
    let ipam = asked.ipam.unwrap_or_default();
    match ipam.driver.as_deref() {
        None | Some("" | "default") => {}
        Some("null") => return refuse("an IPAM driver other than default"),
        Some(other) => return Err(Error::NotFound(format!("plugin \"{other:.60}\" not found"))),
    }
    if ipam.options.is_some_and(|options| !options.is_empty()) {
        return refuse("an option of the IPAM driver");
    }
    let pool = |config: IpamConfig| PoolSpec {
        subnet: config.subnet.unwrap_or_default(),
        range: config.ip_range.unwrap_or_default(),
        gateway: config.gateway.unwrap_or_default(),
        reserved: config.auxiliary_addresses.unwrap_or_default().into_iter().collect(),
    };
    let is_empty = |pool: &PoolSpec| *pool == PoolSpec::default();
    Ok(NetworkSpec {
        name: asked.name,
        driver: asked.driver.unwrap_or_default(),
        internal: asked.internal == Some(true),
        ipv6: asked.enable_ipv6 == Some(true),
        attachable: asked.attachable == Some(true),
        pools: ipam.config.unwrap_or_default().into_iter().map(pool).filter(|pool| !is_empty(pool)).collect(),
        options: asked.options.unwrap_or_default().into_iter().collect(),
        labels: asked.labels.unwrap_or_default().into_iter().collect(),
    })
}

fn shown(network: Network) -> NetworkInspect {
    let config = |pool: &Pool| IpamConfig {
        subnet: Some(pool.subnet.to_string()),
        ip_range: pool.range.map(|range| range.to_string()),
        gateway: pool.gateway.map(|ip| ip.to_string()),
        auxiliary_addresses: (!pool.reserved.is_empty())
            .then(|| pool.reserved.iter().map(|(name, ip)| (name.clone(), ip.to_string())).collect()),
    };
    NetworkInspect {
        name: Some(network.name),
        id: Some(network.id),
        created: Some(clock::rfc3339_ms(Some(network.created_unix_ms))),
        scope: Some("local".into()),
        driver: Some(network.driver.name().into()),
        enable_ipv4: Some(true),
        enable_ipv6: Some(network.ipv6),
        ipam: Some(Ipam {
            driver: Some("default".into()),
            config: Some(network.pools.iter().map(config).collect()),
            options: Some(HashMap::new()),
        }),
        internal: Some(network.internal),
        attachable: Some(network.attachable),
        ingress: Some(false),
        config_from: Some(Default::default()),
        config_only: Some(false),
        options: Some(network.options.into_iter().collect()),
        labels: Some(network.labels.into_iter().collect()),
        ..Default::default()
    }
}

/// Whether a network passes all filters; of one filter's values one has to fit, but of labels all.
fn fits(filters: &Filters, network: &Network, used: &dyn Fn() -> bool) -> bool {
    let any = |key: &str, fits: &dyn Fn(&str) -> bool| {
        filters.get(key).is_none_or(|values| values.is_empty() || values.iter().any(|value| fits(value)))
    };
    let kind = if network.is_predefined() { "builtin" } else { "custom" };
    any("id", &|id| network.id.starts_with(id))
        && any("name", &|name| network.name.contains(name))
        && any("driver", &|driver| network.driver.name() == driver)
        && any("scope", &|scope| scope == "local")
        && any("type", &|wanted| wanted == kind)
        && any("dangling", &|wanted| matches!(wanted, "true" | "1") == (kind == "custom" && !used()))
        && labels_fit(filters, &network.labels)
}

/// Refuses a filter `dangling` that is neither yes nor no, in Docker's words.
pub(crate) fn check_dangling(filters: &Filters) -> Result<(), Error> {
    let values = filters.get("dangling").map_or(&[][..], Vec::as_slice);
    match values.iter().find(|value| !matches!(value.as_str(), "true" | "false" | "1" | "0")) {
        Some(_) => Err(Error::BadParameter(format!("invalid filter 'dangling=[{:.60}]'", values.join(" ")))),
        None => Ok(()),
    }
}

/// Whether all labels that are asked for are there, and none of those that must not.
pub(crate) fn labels_fit(filters: &Filters, labels: &BTreeMap<String, String>) -> bool {
    let has = |wanted: &String| {
        let (name, value) = wanted.split_once('=').map_or((wanted.as_str(), None), |(name, value)| (name, Some(value)));
        labels.get(name).is_some_and(|found| value.is_none_or(|value| value == found))
    };
    let list = |key: &str| filters.get(key).into_iter().flatten();
    list("label").all(has) && !list("label!").any(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        let of = |json: &str| spec(serde_json::from_str(json).unwrap());
        assert_eq!(of(r#"{"Name":"a","Driver":"macvlan"}"#).unwrap().driver, "macvlan");
        let with_pool = of(r#"{"Name":"a","IPAM":{"Config":[{"Subnet":"10.0.0.0/8"},{}]}}"#).unwrap();
        assert_eq!(with_pool.pools.len(), 1);
        for (json, word) in [
            (r#"{"Name":"a","Ingress":true}"#, "swarm"),
            (r#"{"Name":"a","EnableIPv4":false}"#, "IPv4"),
            (r#"{"Name":"a","IPAM":{"Driver":"null"}}"#, "IPAM driver"),
            (r#"{"Name":"a","Scope":"swarm"}"#, "scope"),
        ] {
            let error = of(json).unwrap_err();
            assert!(matches!(&error, Error::BadParameter(text) if text.contains(word)), "{error}");
        }
    }

    #[test]
    fn labels_must_all_fit_and_none_of_the_unwanted() {
        let labels = [("a".to_owned(), "1".to_owned())].into();
        let check = |key: &str, value: &str| labels_fit(&Filters::from([(key.into(), vec![value.into()])]), &labels);
        assert!(check("label", "a") && check("label", "a=1") && !check("label", "a=2") && !check("label", "b"));
        assert!(!check("label!", "a") && check("label!", "b"));
    }
}
