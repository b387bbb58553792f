//! Networks are made and removed.

use crate::error::{invalid, kernel};
use crate::net::{Net, random_id, route_socket, routes, unix_ms};
use crate::network::{self, Driver, Network, NetworkSpec, Pool};
use crate::state::State;
use crate::{Error, bridge, firewall, ipam, link, parent};

/// Most networks.
const MAX_NETWORKS: usize = 1024;

impl Net {
    /// Makes a network. Nothing is left behind by a failure.
    pub fn create(&self, spec: NetworkSpec) -> Result<Network, Error> {
        let driver = network::check(&spec)?;
        let asked = spec.pools.iter().map(network::pool).collect::<Result<Vec<_>, _>>()?;
        let mut state = self.lock();
        if state.networks.iter().any(|other| other.name == spec.name) {
            return Err(Error::Conflict(format!("network with name {} already exists", spec.name)));
        }
        if state.networks.len() >= MAX_NETWORKS {
            return Err(Error::Exhausted(format!("there are {MAX_NETWORKS} networks already; remove some")));
        }
        let socket = route_socket()?;
        let pools = pools(&state, &spec, asked, || routes(&socket, &state))?;
        let mut network = Network {
            id: random_id()?,
            name: spec.name,
            created_unix_ms: unix_ms(),
            driver,
            internal: spec.internal,
            ipv6: spec.ipv6,
            attachable: spec.attachable,
            pools,
            options: spec.options,
            labels: spec.labels,
            own_parent: false,
        };
        if driver == Driver::Bridge {
            let name = network.bridge();
            let taken = link::index(&socket, &name).map_err(kernel(|| format!("look for interface {name}")))?;
            if taken.is_some() {
                return Err(Error::Forbidden(format!("the host has an interface {name} already")));
            }
        } else {
            // Over an interface that leads nowhere.
            network.internal |= network.parent().is_none();
            parent::check(&state, &network)?;
            network.own_parent = parent::is_own(&socket, &state, &network)?;
        }
        state.networks.push(network.clone());
        // It is durable before it is there, so that a crash leaves nothing that nobody knows of.
        let made = self.store.write_networks(&state).and_then(|()| match driver {
            Driver::Bridge => {
                bridge::ensure(&socket, &network)?;
                firewall::replace(&state).map_err(kernel(|| "replace nf_tables table keel".into()))
            }
            _ => parent::ensure(&socket, &network).map(drop),
        });
        if let Err(e) = made {
            if let Err(undo) = self.forget(&mut state, &network) {
                log::warn!("network {}: what a failure left behind wasn't removed: {undo}", network.name);
            }
            return Err(e);
        }
        Ok(network)
    }

    /// Removes a network that no container is in.
    pub fn remove(&self, wanted: &str) -> Result<Network, Error> {
        let mut state = self.lock();
        let network = state.find(wanted)?.clone();
        if network.is_predefined() {
            return Err(Error::Forbidden(format!("{} is a pre-defined network and cannot be removed", network.name)));
        }
        let members: Vec<_> = state.members(&network.id).map(|(id, _)| id.get(..12).unwrap_or(id).to_owned()).collect();
        if !members.is_empty() {
            return Err(Error::Forbidden(format!(
                "error while removing network: network {} id {} has active endpoints ({})",
                network.name,
                network.id,
                members.join(", ")
            )));
        }
        self.forget(&mut state, &network)?;
        Ok(network)
    }

    /// Takes a network away, all of it, whatever fails.
    fn forget(&self, state: &mut State, network: &Network) -> Result<(), Error> {
        state.networks.retain(|other| other.id != network.id);
        let rules = match network.driver {
            Driver::Bridge => firewall::replace(state).map_err(kernel(|| "replace nf_tables table keel".into())),
            _ => Ok(()),
        };
        let removed = route_socket().and_then(|socket| match network.driver {
            Driver::Bridge => bridge::remove(&socket, network),
            _ => parent::remove(&socket, state, network),
        });
        // Last, so that after a crash the next start knows of what is left.
        let written = self.store.write_networks(state);
        rules.and(removed).and(written)
    }
}

/// A network's ranges: those asked for, others chosen.
fn pools(
    state: &State,
    spec: &NetworkSpec,
    asked: Vec<Pool>,
    routes: impl Fn() -> Result<Vec<crate::Cidr>, Error>,
) -> Result<Vec<Pool>, Error> {
    let mut pools: Vec<Pool> = Vec::new();
    let subnets = state.subnets();
    for pool in asked {
        if !pool.subnet.is_v4() && !spec.ipv6 {
            return invalid(format!("subnet {} needs IPv6 to be enabled (--ipv6)", pool.subnet));
        }
        if pools.iter().any(|other| other.subnet.is_v4() == pool.subnet.is_v4()) {
            return invalid("a network has one subnet of each family at most");
        }
        if let Some(other) = subnets.iter().find(|other| other.overlaps(&pool.subnet)) {
            return Err(Error::Forbidden(format!(
                "invalid pool request: Pool overlaps with other one on this address space: {} with {other}",
                pool.subnet
            )));
        }
        pools.push(pool);
    }
    for v4 in [true, false] {
        if (v4 || spec.ipv6) && !pools.iter().any(|pool| pool.subnet.is_v4() == v4) {
            let taken = [subnets.clone(), routes()?].concat();
            pools.push(if v4 { ipam::choose_v4(&taken)? } else { ipam::choose_v6(state.local_bits, &taken)? });
        }
    }
    pools.sort_by_key(|pool| !pool.subnet.is_v4());
    Ok(pools)
}
