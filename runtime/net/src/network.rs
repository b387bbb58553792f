//! Networks: what is asked for, validated, and what is kept of each.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::cidr::Cidr;
use crate::error::{Error, invalid};

/// Name of the network that containers are in by default.
pub const DEFAULT: &str = "bridge";
/// Names of the networks that are always there.
pub const PREDEFINED: [&str; 3] = [DEFAULT, "host", "none"];
/// Longest name of a network.
const MAX_NAME_BYTES: usize = 128;
/// Longest name of an interface (`IFNAMSIZ`, without the closing zero).
const MAX_INTERFACE_BYTES: usize = 15;
/// Most labels, options and auxiliary addresses of one network, each.
const MAX_ENTRIES: usize = 256;

/// How a network's containers are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// To a bridge of the host, with address translation outwards.
    Bridge,
    /// To the host's own link, with an Ethernet address each.
    Macvlan,
    /// To the host's own link, sharing its Ethernet address.
    Ipvlan,
    /// They share the host's network.
    Host,
    /// Not at all.
    Null,
}

impl Driver {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Driver::Bridge => "bridge",
            Driver::Macvlan => "macvlan",
            Driver::Ipvlan => "ipvlan",
            Driver::Host => "host",
            Driver::Null => "null",
        }
    }
}

/// A range that a network's addresses are from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    /// All of the network.
    pub subnet: Cidr,
    /// The part that addresses are given from; `None`: all.
    #[serde(default)]
    pub range: Option<Cidr>,
    /// The address that leads out.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Addresses that aren't given, with names for them.
    #[serde(default)]
    pub reserved: BTreeMap<String, IpAddr>,
    /// Whether the subnet was asked for, rather than chosen.
    #[serde(default)]
    pub asked: bool,
    /// Distance from the beginning after the address given last: one isn't given again while neighbours may remember
    /// its owner.
    #[serde(default)]
    pub next: u64,
}

/// A range asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolSpec {
    /// All of the network; empty: chosen.
    pub subnet: String,
    /// The part that addresses are given from.
    pub range: String,
    /// The address that leads out; empty: the first.
    pub gateway: String,
    /// Addresses that aren't given, with names for them.
    pub reserved: BTreeMap<String, String>,
}

/// A network asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its driver; empty: `bridge`.
    pub driver: String,
    /// Whether it leads nowhere but to its own containers.
    pub internal: bool,
    /// Whether it has IPv6.
    pub ipv6: bool,
    /// Kept for clients, without a meaning here.
    pub attachable: bool,
    /// Its ranges; none: chosen.
    pub pools: Vec<PoolSpec>,
    /// Of the driver.
    pub options: BTreeMap<String, String>,
    /// Kept for clients.
    pub labels: BTreeMap<String, String>,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its ID, 64 hexadecimal digits.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was created, milliseconds since the Unix epoch.
    #[serde(default)]
    pub created_unix_ms: u64,
    /// Its driver.
    pub driver: Driver,
    /// See [`NetworkSpec::internal`].
    #[serde(default)]
    pub internal: bool,
    /// See [`NetworkSpec::ipv6`].
    #[serde(default)]
    pub ipv6: bool,
    /// See [`NetworkSpec::attachable`].
    #[serde(default)]
    pub attachable: bool,
    /// Its ranges: one of IPv4, at most one of IPv6.
    #[serde(default)]
    pub pools: Vec<Pool>,
    /// See [`NetworkSpec::options`].
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    /// See [`NetworkSpec::labels`].
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Whether the host's link that it is over was made for it.
    #[serde(default)]
    pub own_parent: bool,
}

/// Options of each driver.
const BRIDGE_OPTIONS: [&str; 8] = [
    "com.docker.network.bridge.name",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.bridge.default_bridge",
    "com.docker.network.driver.mtu",
    "com.docker.network.container_iface_prefix",
    "com.docker.network.container_interface_prefix",
];
const MACVLAN_OPTIONS: [&str; 3] = ["parent", "macvlan_mode", "com.docker.network.driver.mtu"];
const IPVLAN_OPTIONS: [&str; 4] = ["parent", "ipvlan_mode", "ipvlan_flag", "com.docker.network.driver.mtu"];

impl Network {
    /// Whether it is one of those that are always there.
    pub fn is_predefined(&self) -> bool {
        PREDEFINED.contains(&self.name.as_str())
    }

    /// Whether containers find each other by name in it.
    pub fn has_names(&self) -> bool {
        !self.is_predefined()
    }

    /// A network of this driver with nothing of its own yet.
    pub(crate) fn empty(driver: Driver) -> Self {
        Network {
            id: String::new(),
            name: String::new(),
            created_unix_ms: 0,
            driver,
            internal: false,
            ipv6: false,
            attachable: false,
            pools: Vec::new(),
            options: BTreeMap::new(),
            labels: BTreeMap::new(),
            own_parent: false,
        }
    }

    /// The link of the host that it is over, by name. An internal one must lead nowhere, not even to that link's
    /// neighbours.
    pub(crate) fn parent(&self) -> Option<&str> {
        let shares = matches!(self.driver, Driver::Macvlan | Driver::Ipvlan) && !self.internal;
        self.options.get("parent").map(String::as_str).filter(|name| shares && !name.is_empty())
    }

    /// Name of its bridge.
    pub(crate) fn bridge(&self) -> String {
        match self.options.get("com.docker.network.bridge.name") {
            Some(name) => name.clone(),
            None if self.name == DEFAULT => "keel0".into(),
            None => format!("br-{}", self.id.get(..12).unwrap_or(&self.id)),
        }
    }

    /// Whether its containers may talk to each other.
    pub(crate) fn talks(&self) -> bool {
        self.flag("com.docker.network.bridge.enable_icc")
    }

    /// Whether they reach outside under the host's address.
    pub(crate) fn masquerades(&self) -> bool {
        !self.internal && self.flag("com.docker.network.bridge.enable_ip_masquerade")
    }

    /// The address that its ports are published on where none is named.
    pub(crate) fn binding(&self) -> Option<IpAddr> {
        let ip = self.options.get("com.docker.network.bridge.host_binding_ipv4")?;
        ip.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified())
    }

    /// Size of a packet; `None`: the kernel's default.
    pub(crate) fn mtu(&self) -> Option<u32> {
        self.options.get("com.docker.network.driver.mtu")?.parse().ok().filter(|mtu| *mtu > 0)
    }

    /// What interfaces inside are named after.
    pub(crate) fn interface_prefix(&self) -> &str {
        let named = ["com.docker.network.container_iface_prefix", "com.docker.network.container_interface_prefix"];
        named.iter().find_map(|name| self.options.get(*name)).map_or("eth", String::as_str)
    }

    /// The range of one family.
    pub fn pool(&self, v4: bool) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.subnet.is_v4() == v4)
    }

    fn flag(&self, name: &str) -> bool {
        self.options.get(name).is_none_or(|value| is_true(value) == Some(true))
    }
}

/// As Go reads flags.
fn is_true(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Checks all that can be checked without knowing of other networks.
pub(crate) fn check(spec: &NetworkSpec) -> Result<Driver, Error> {
    check_name(&spec.name)?;
    let driver = match spec.driver.as_str() {
        "" | "bridge" | "default" => Driver::Bridge,
        "macvlan" => Driver::Macvlan,
        "ipvlan" => Driver::Ipvlan,
        "host" => return Err(Error::Forbidden("only one instance of \"host\" network is allowed".into())),
        "null" | "none" => return Err(Error::Forbidden("only one instance of \"null\" network is allowed".into())),
        "overlay" => return Err(Error::Forbidden("This node is not a swarm manager: overlay isn't served".into())),
        other => {
            return Err(Error::NotFound(format!("plugin \"{other:.60}\" not found")));
        }
    };
    if [spec.options.len(), spec.labels.len(), spec.pools.len()].iter().any(|count| *count > MAX_ENTRIES) {
        return invalid(format!("more than {MAX_ENTRIES} options, labels or subnets"));
    }
    let known: &[&str] = match driver {
        Driver::Bridge => &BRIDGE_OPTIONS,
        Driver::Macvlan => &MACVLAN_OPTIONS,
        _ => &IPVLAN_OPTIONS,
    };
    for (name, value) in &spec.options {
        if !known.contains(&name.as_str()) {
            return invalid(format!("option {name:.80} of driver {} isn't supported", driver.name()));
        }
        check_option(name, value)?;
    }
    Ok(driver)
}

fn check_name(name: &str) -> Result<(), Error> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if !first || !rest || name.len() > MAX_NAME_BYTES {
        return invalid(format!(
            "invalid network name: {name:.140}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, {MAX_NAME_BYTES} at most"
        ));
    }
    match name {
        // Refused in Docker's words, with which clients tell this from a name that is taken.
        "bridge" | "host" | "none" => {
            Err(Error::Forbidden(format!("operation is not permitted on predefined {name} network")))
        }
        "default" | "container" => invalid(format!("invalid network name: {name} has a meaning of its own")),
        _ => Ok(()),
    }
}

fn check_option(name: &str, value: &str) -> Result<(), Error> {
    let short = name.rsplit('.').next().unwrap_or(name);
    let fine = match short {
        "enable_icc" | "enable_ip_masquerade" => is_true(value).is_some(),
        "default_bridge" => is_true(value) == Some(false),
        "mtu" => value.parse::<u32>().is_ok_and(|mtu| mtu == 0 || (68..=65535).contains(&mtu)),
        "host_binding_ipv4" => value.parse::<std::net::Ipv4Addr>().is_ok(),
        // As if it weren't there.
        "parent" if value.is_empty() => true,
        "name" | "parent" => is_interface(value, MAX_INTERFACE_BYTES),
        "container_iface_prefix" | "container_interface_prefix" => is_interface(value, 10) && value != "lo",
        "macvlan_mode" => matches!(value, "" | "bridge" | "private" | "vepa" | "passthru"),
        "ipvlan_flag" => matches!(value, "" | "bridge" | "private" | "vepa"),
        "ipvlan_mode" => matches!(value, "" | "l2" | "l3" | "l3s"),
        _ => false,
    };
    match short {
        _ if fine => Ok(()),
        // In Docker's words.
        "macvlan_mode" => invalid(format!(
            "requested macvlan mode '{value:.60}' is not valid, 'bridge' mode is the macvlan driver default"
        )),
        "ipvlan_mode" => {
            invalid(format!("requested ipvlan mode '{value:.60}' is not valid, 'l2' mode is the ipvlan driver default"))
        }
        "ipvlan_flag" => {
            invalid(format!("requested ipvlan flag '{value:.60}' is not valid, 'bridge' is the ipvlan driver default"))
        }
        _ => invalid(format!("failed to parse {name} value: {value:.60}")),
    }
}

fn is_interface(name: &str, longest: usize) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    !name.is_empty() && name.len() <= longest && !matches!(name, "." | "..") && name.bytes().all(plain)
}

/// A range as clients write it, whose bits behind the prefix have to be zero. Refused in Docker's words.
fn range(what: &str, text: &str) -> Result<Cidr, Error> {
    let notation = |_| Error::Invalid(format!("invalid {what} {text:.60}: invalid CIDR block notation"));
    let range: Cidr = text.parse().map_err(notation)?;
    let ip = text.split('/').next().and_then(|ip| ip.parse::<IpAddr>().ok());
    if ip != Some(range.base()) {
        return invalid(format!("invalid {what} {text:.60}: it should be {range}"));
    }
    Ok(range)
}

/// A range asked for, checked in itself.
pub(crate) fn pool(spec: &PoolSpec) -> Result<Pool, Error> {
    let subnet = range("subnet", &spec.subnet)?;
    let family = if subnet.is_v4() { "IPv4" } else { "IPv6" };
    // At least one address for a container beside network, gateway and broadcast.
    let (shortest, longest) = if subnet.is_v4() { (8, 30) } else { (16, 126) };
    if !(shortest..=longest).contains(&subnet.prefix()) {
        return invalid(format!("invalid subnet {subnet}: its prefix must be from {shortest} to {longest}"));
    }
    let ip = subnet.base();
    if ip.is_loopback() || ip.is_multicast() || ip.is_unspecified() {
        return invalid(format!("invalid subnet {subnet}: containers can't have such addresses"));
    }
    let inside = |what: &str, text: &str| -> Result<IpAddr, Error> {
        match text.split('/').next().unwrap_or_default().parse::<IpAddr>() {
            Ok(ip) if subnet.contains(ip) => Ok(ip),
            Ok(ip) if ip.is_ipv4() != subnet.is_v4() => {
                invalid(format!("invalid {what}: parent subnet is an {family} block"))
            }
            Ok(_) => invalid(format!("invalid {what}: parent subnet {subnet} doesn't contain this address")),
            Err(_) => invalid(format!("invalid {what}: invalid address {text:.60}")),
        }
    };
    let range = match spec.range.as_str() {
        "" => None,
        text => {
            let range = range("ip-range", text)?;
            if range.is_v4() != subnet.is_v4() {
                return invalid(format!("invalid ip-range {range}: parent subnet is an {family} block"));
            }
            if range.prefix() < subnet.prefix() {
                let reason = "CIDR block is bigger than its parent subnet";
                return invalid(format!("invalid ip-range {range}: {reason} {subnet}"));
            }
            if !subnet.contains(range.base()) {
                return invalid(format!("invalid ip-range {range}: parent subnet {subnet} doesn't contain ip-range"));
            }
            Some(range)
        }
    };
    let gateway = match spec.gateway.as_str() {
        "" => subnet.nth(1),
        text => Some(inside(&format!("gateway {text:.60}"), text)?),
    };
    let mut reserved = BTreeMap::new();
    if spec.reserved.len() > MAX_ENTRIES {
        return invalid(format!("more than {MAX_ENTRIES} auxiliary addresses"));
    }
    for (name, text) in &spec.reserved {
        reserved.insert(name.clone(), inside(&format!("auxiliary address {name:.60}"), text)?);
    }
    Ok(Pool { subnet, range, gateway, reserved, asked: true, next: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, options: &[(&str, &str)]) -> NetworkSpec {
        let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        NetworkSpec { name: name.into(), options, ..NetworkSpec::default() }
    }

    #[test]
    fn names_and_options_that_make_no_sense_are_refused() {
        assert_eq!(check(&spec("mine", &[("com.docker.network.bridge.enable_icc", "false")])).unwrap(), Driver::Bridge);
        assert!(matches!(check(&spec("host", &[])), Err(Error::Forbidden(_))));
        for (name, option, value) in [
            ("", "com.docker.network.driver.mtu", "1500"),
            ("../x", "com.docker.network.driver.mtu", "1500"),
            ("a", "com.docker.network.driver.mtu", "9"),
            ("a", "com.docker.network.bridge.name", "a/b"),
            ("a", "com.docker.network.bridge.enable_icc", "maybe"),
            ("a", "parent", "eth0"),
        ] {
            assert!(matches!(check(&spec(name, &[(option, value)])), Err(Error::Invalid(_))), "{name} {option}");
        }
    }

    #[test]
    fn ranges_have_their_parts_inside() {
        let of = |subnet: &str, range: &str, gateway: &str| {
            pool(&PoolSpec {
                subnet: subnet.into(),
                range: range.into(),
                gateway: gateway.into(),
                ..PoolSpec::default()
            })
        };
        assert_eq!(of("10.5.0.0/24", "", "").unwrap().gateway, "10.5.0.1".parse().ok());
        assert_eq!(of("fd00:1::/64", "", "fd00:1::9").unwrap().gateway, "fd00:1::9".parse().ok());
        for (subnet, range, gateway) in [
            ("10.5.0.0/31", "", ""),
            ("127.0.0.0/8", "", ""),
            ("10.5.0.0/24", "10.6.0.0/25", ""),
            ("10.5.0.0/24", "10.5.0.0/16", ""),
            ("10.5.0.0/24", "", "10.6.0.1"),
            ("x", "", ""),
        ] {
            assert!(of(subnet, range, gateway).is_err(), "{subnet} {range} {gateway}");
        }
    }
}
