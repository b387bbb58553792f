//! The link of the host that a network without a bridge is over: one that is there, a VLAN of one that is made for it
//! (`eth0.10`, IEEE 802.1Q), or one that leads nowhere.

use crate::Error;
use crate::error::{invalid, kernel};
use crate::link;
use crate::netlink::Socket;
use crate::network::{Driver, Network};
use crate::state::State;

/// VLANs that can be: 0 and 4095 have meanings of their own.
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;

/// Refuses what the kernel would refuse when the first container starts, in Docker's words where it has any.
pub(crate) fn check(state: &State, network: &Network) -> Result<(), Error> {
    let Some(name) = network.parent() else { return Ok(()) };
    let driver = network.driver.name();
    if name == "lo" {
        return invalid(format!("loopback interface is not a valid {driver} parent link"));
    }
    let passes_all = |network: &Network| network.options.get("macvlan_mode").is_some_and(|mode| mode == "passthru");
    for other in users(state, name) {
        let reason = match (network.driver, other.driver) {
            (Driver::Macvlan, Driver::Macvlan) if passes_all(network) => {
                format!(
                    "cannot use mode passthru, macvlan network {} is already using parent interface {name}",
                    other.id
                )
            }
            (Driver::Macvlan, Driver::Macvlan) if passes_all(other) => {
                format!("macvlan network {} is already using parent interface {name} in mode passthru", other.id)
            }
            (Driver::Macvlan, Driver::Macvlan) => continue,
            // All of a parent's links have one mode.
            (Driver::Ipvlan, Driver::Ipvlan) => {
                format!("network {} is already using parent interface {name}", other.name)
            }
            _ => format!(
                "{} network {} is already using parent interface {name}, which can't be shared by {driver} as well",
                other.driver.name(),
                other.name
            ),
        };
        return Err(Error::Forbidden(reason));
    }
    Ok(())
}

/// Whether a network's parent is to be made for it, and goes with its last network: a VLAN that isn't there, or was made
/// for another network.
pub(crate) fn is_own(socket: &Socket, state: &State, network: &Network) -> Result<bool, Error> {
    let Some(name) = network.parent() else { return Ok(true) };
    match users(state, name).next() {
        Some(other) => Ok(other.own_parent),
        None => Ok(vlan(name).is_some() && find(socket, name)?.is_none()),
    }
}

/// The index of a network's parent, which is made if it is the network's own.
pub(crate) fn ensure(socket: &Socket, network: &Network) -> Result<u32, Error> {
    let Some(name) = network.parent() else {
        let name = dummy(network);
        return link::ensure_dummy(socket, &name).map_err(kernel(|| format!("make interface {name}")));
    };
    if let Some(index) = find(socket, name)? {
        return Ok(index);
    }
    let missing = |name: &str| Error::Invalid(format!("network {}: the host has no interface {name}", network.name));
    let (below, id) = vlan(name).filter(|_| network.own_parent).ok_or_else(|| missing(name))?;
    let index = find(socket, below)?.ok_or_else(|| missing(below))?;
    link::make_vlan(socket, name, index, id).map_err(kernel(|| format!("make VLAN interface {name}")))
}

/// Removes the parent of a network that is no longer in `state`, if it is its own and no other's.
pub(crate) fn remove(socket: &Socket, state: &State, network: &Network) -> Result<(), Error> {
    let name = match network.parent() {
        None => dummy(network),
        Some(name) if network.own_parent && users(state, name).next().is_none() => name.to_owned(),
        Some(_) => return Ok(()),
    };
    link::remove(socket, &name).map_err(kernel(|| format!("remove interface {name}")))
}

/// The networks over a link of the host.
fn users<'a>(state: &'a State, name: &'a str) -> impl Iterator<Item = &'a Network> {
    state.networks.iter().filter(move |network| network.parent() == Some(name))
}

/// Name of the interface that a network over nothing is over.
fn dummy(network: &Network) -> String {
    format!("dm-{}", network.id.get(..12).unwrap_or(&network.id))
}

/// The link and the number of a VLAN, by its name.
fn vlan(name: &str) -> Option<(&str, u16)> {
    let (below, id) = name.rsplit_once('.')?;
    let id = id.parse().ok().filter(|id| VLANS.contains(id))?;
    (!below.is_empty()).then_some((below, id))
}

fn find(socket: &Socket, name: &str) -> Result<Option<u32>, Error> {
    link::index(socket, name).map_err(kernel(|| format!("look for interface {name}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(driver: Driver, options: &[(&str, &str)]) -> Network {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        Network { id: "1".repeat(64), name: "n".into(), options, ..Network::empty(driver) }
    }

    #[test]
    fn a_vlan_is_told_by_its_name() {
        for (name, expected) in [
            ("eth0.10", Some(("eth0", 10))),
            ("eth0.5.4094", Some(("eth0.5", 4094))),
            ("eth0", None),
            ("eth0.0", None),
            ("eth0.4095", None),
            ("eth0.x", None),
            (".7", None),
        ] {
            assert_eq!(vlan(name), expected, "{name}");
        }
    }

    #[test]
    fn a_link_is_shared_only_by_networks_that_can() {
        let parent = ("parent", "eth0");
        let (macvlan, ipvlan) = (network(Driver::Macvlan, &[parent]), network(Driver::Ipvlan, &[parent]));
        let alone = network(Driver::Macvlan, &[parent, ("macvlan_mode", "passthru")]);
        let elsewhere = network(Driver::Ipvlan, &[("parent", "eth1")]);
        for (there, new, fine) in [
            (&macvlan, &macvlan, true),
            (&macvlan, &ipvlan, false),
            (&ipvlan, &macvlan, false),
            (&ipvlan, &ipvlan, false),
            (&alone, &macvlan, false),
            (&macvlan, &alone, false),
            (&ipvlan, &elsewhere, true),
        ] {
            let state = State { networks: vec![there.clone()], ..State::default() };
            assert_eq!(check(&state, new).is_ok(), fine, "{there:?} {new:?}");
        }
        let loopback = network(Driver::Ipvlan, &[("parent", "lo")]);
        assert!(matches!(check(&State::default(), &loopback), Err(Error::Invalid(_))));
    }

    #[test]
    fn an_internal_network_is_over_no_link_of_the_hosts() {
        let network = network(Driver::Macvlan, &[("parent", "eth0")]);
        assert_eq!(network.parent(), Some("eth0"));
        assert_eq!(Network { internal: true, ..network }.parent(), None);
    }
}
