//! Which networks a container is in, and how.

use std::net::IpAddr;

use bollard_stubs::models::{ContainerCreateBody, EndpointSettings};
use keel_net::Wanted;

use super::bad;
use crate::error::Error;

/// Name of the network that containers are in by default.
pub const DEFAULT: &str = "bridge";
/// Most names of one endpoint, of each kind.
const MAX_NAMES: usize = 64;

/// Most link-local addresses of one endpoint.
const MAX_LINK_LOCAL: usize = 16;

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// To networks, of which this one is the first.
    Network(String),
    /// Not at all.
    None,
    /// It shares the host's network.
    Host,
    /// It shares another container's network.
    Container(String),
}

/// The network mode asked for.
pub fn mode(body: &ContainerCreateBody) -> Result<Mode, Error> {
    if body.network_disabled == Some(true) {
        return Ok(Mode::None);
    }
    Ok(match body.host_config.as_ref().and_then(|host| host.network_mode.as_deref()).unwrap_or_default() {
        "" | "default" => Mode::Network(DEFAULT.into()),
        "none" => Mode::None,
        "host" => Mode::Host,
        name => match name.strip_prefix("container:") {
            Some("") => return bad("invalid container format container:<name|id>"),
            Some(other) => Mode::Container(other.into()),
            None => Mode::Network(name.into()),
        },
    })
}

/// Writes the mode's own network among those of a new container, so that it can be taken off it later.
pub fn complete(body: &mut ContainerCreateBody) -> Result<(), Error> {
    let Mode::Network(first) = mode(body)? else { return Ok(()) };
    let map = body.networking_config.get_or_insert_default().endpoints_config.get_or_insert_default();
    if let Some(settings) = map.remove("default") {
        map.insert(DEFAULT.into(), settings);
    }
    if let Some(name) = ["host", "none"].iter().find(|name| map.contains_key(**name)) {
        return bad(format!("conflicting options: network {name} can't be combined with others"));
    }
    map.entry(first).or_default();
    Ok(())
}

/// The settings of each network that a container is to be in, the mode's own first.
pub fn asked(body: &ContainerCreateBody) -> Result<Vec<(String, EndpointSettings)>, Error> {
    let Mode::Network(first) = mode(body)? else { return Ok(Vec::new()) };
    let map = body.networking_config.as_ref().and_then(|config| config.endpoints_config.clone());
    let Some(map) = map else { return Ok(vec![(first, EndpointSettings::default())]) };
    let named = |name: String| if name == "default" { DEFAULT.into() } else { name };
    let mut all: Vec<_> = map.into_iter().map(|(name, settings)| (named(name), settings)).collect();
    all.sort_by(|(one, _), (other, _)| (*one != first, one).cmp(&(*other != first, other)));
    Ok(all)
}

/// What one endpoint asks for, but for its network and the containers that it links to.
pub fn wanted(settings: &EndpointSettings, default_network: bool) -> Result<Wanted, Error> {
    let ipam = settings.ipam_config.clone().unwrap_or_default();
    let link_local = link_local(ipam.link_local_ips.as_deref().unwrap_or_default())?;
    if settings.driver_opts.as_ref().is_some_and(|options| !options.is_empty()) {
        return bad("driver options of an endpoint aren't supported");
    }
    let aliases = settings.aliases.clone().unwrap_or_default();
    if default_network && !aliases.is_empty() {
        return bad("network-scoped alias is supported only for containers in user defined networks");
    }
    if aliases.len() > MAX_NAMES || settings.links.as_ref().is_some_and(|links| links.len() > MAX_NAMES) {
        return bad(format!("more than {MAX_NAMES} aliases or links"));
    }
    if let Some(alias) = aliases.iter().find(|alias| !is_host_name(alias)) {
        return bad(format!("invalid network alias: {alias:.80}"));
    }
    let ip = match filled(ipam.ipv4_address.as_ref()) {
        None => None,
        Some(text) => Some(text.parse().or_else(|_| bad(format!("invalid IPv4 address: {text:.60}")))?),
    };
    let ip6 = match filled(ipam.ipv6_address.as_ref()) {
        None => None,
        Some(text) => Some(text.parse().or_else(|_| bad(format!("invalid IPv6 address: {text:.60}")))?),
    };
    let mac = match filled(settings.mac_address.as_ref()) {
        None => None,
        Some(text) => Some(text.parse().or_else(|why: String| bad(why))?),
    };
    let priority = settings.gw_priority.unwrap_or(0);
    Ok(Wanted { ip, ip6, link_local, mac, names: aliases, priority, ..Wanted::default() })
}

/// Further addresses, which must be of the kind that no router passes on: one container can't take another's.
fn link_local(texts: &[String]) -> Result<Vec<IpAddr>, Error> {
    if texts.len() > MAX_LINK_LOCAL {
        return bad(format!("more than {MAX_LINK_LOCAL} link-local addresses"));
    }
    let parse = |text: &String| match text.parse() {
        Ok(IpAddr::V4(ip)) if ip.is_link_local() => Ok(ip.into()),
        Ok(IpAddr::V6(ip)) if ip.is_unicast_link_local() => Ok(ip.into()),
        _ => bad(format!(
            "invalid link-local IP address: {text:.60}: such addresses are from 169.254.0.0/16 or fe80::/10"
        )),
    };
    texts.iter().map(parse).collect()
}

fn filled(text: Option<&String>) -> Option<&String> {
    text.filter(|text| !text.is_empty())
}

/// Whether DNS can tell of it (RFC 1035, section 2.3.4; letters are taken widely, as resolvers do).
fn is_host_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.split('.').all(|label| (1..=63).contains(&label.len()))
}

/// `container:alias`, or a container alone.
pub fn link(text: &str) -> Result<(&str, &str), Error> {
    let (name, alias) = text.split_once(':').unwrap_or((text, text));
    let name = name.strip_prefix('/').unwrap_or(name);
    // Inspections show whole paths, `/db:/web/db`.
    let alias = alias.rsplit('/').next().unwrap_or(alias);
    if name.is_empty() || !is_host_name(alias) {
        return bad(format!("invalid link: {text:.80}: it has the form name or name:alias"));
    }
    Ok((name, alias))
}

/// The name servers asked for.
pub fn servers(body: &ContainerCreateBody) -> Result<Vec<IpAddr>, Error> {
    let list = body.host_config.as_ref().and_then(|host| host.dns.as_ref());
    let parse = |text: &String| text.parse().or_else(|_| bad(format!("invalid IP address for --dns: {text:.60}")));
    list.into_iter().flatten().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: &str) -> ContainerCreateBody {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn modes_are_told_apart() {
        let of = |mode_text: &str| mode(&body(&format!(r#"{{"HostConfig":{{"NetworkMode":"{mode_text}"}}}}"#)));
        assert_eq!(of("default").unwrap(), Mode::Network("bridge".into()));
        assert_eq!(of("mine").unwrap(), Mode::Network("mine".into()));
        assert_eq!(of("container:x").unwrap(), Mode::Container("x".into()));
        assert!(of("container:").is_err());
        assert_eq!(mode(&body("{}")).unwrap(), Mode::Network("bridge".into()));
    }

    #[test]
    fn the_modes_network_comes_first() {
        let json = r#"{"HostConfig":{"NetworkMode":"m"},"NetworkingConfig":{"EndpointsConfig":{
            "b":{},"a":{},"m":{"Aliases":["x"]}}}}"#;
        let mut named = body(json);
        complete(&mut named).unwrap();
        let asked = asked(&named).unwrap();
        assert_eq!(asked.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["m", "a", "b"]);
        assert_eq!(asked[0].1.aliases.as_ref().unwrap(), &["x"]);
        for json in ["{}", r#"{"NetworkingConfig":{"EndpointsConfig":{"default":{}}}}"#] {
            let mut plain = body(json);
            complete(&mut plain).unwrap();
            assert_eq!(super::asked(&plain).unwrap()[0].0, "bridge", "{json}");
        }
    }

    #[test]
    fn wrong_addresses_and_names_are_refused() {
        for json in [
            r#"{"IPAMConfig":{"IPv4Address":"1.2.3"}}"#,
            r#"{"IPAMConfig":{"IPv6Address":"1.2.3.4"}}"#,
            r#"{"MacAddress":"1"}"#,
            r#"{"IPAMConfig":{"LinkLocalIPs":["10.0.0.1"]}}"#,
            r#"{"IPAMConfig":{"LinkLocalIPs":["fd00::1"]}}"#,
            r#"{"IPAMConfig":{"LinkLocalIPs":["x"]}}"#,
            r#"{"Aliases":[""]}"#,
            r#"{"Aliases":["a..b"]}"#,
        ] {
            assert!(wanted(&serde_json::from_str(json).unwrap(), false).is_err(), "{json}");
        }
        let aliased = serde_json::from_str(r#"{"Aliases":["db"]}"#).unwrap();
        assert!(wanted(&aliased, true).is_err());
        assert_eq!(wanted(&aliased, false).unwrap().names, ["db"]);
        let further = serde_json::from_str(r#"{"IPAMConfig":{"LinkLocalIPs":["169.254.3.4","fe80::7"]}}"#).unwrap();
        assert_eq!(wanted(&further, false).unwrap().link_local.len(), 2);
    }

    #[test]
    fn links_have_an_alias_or_their_own_name() {
        assert_eq!(link("db").unwrap(), ("db", "db"));
        assert_eq!(link("/db:/web/data").unwrap(), ("db", "data"));
        assert!(link(":x").is_err() && link("x:").is_err());
    }
}
