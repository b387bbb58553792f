//! `ports` and `expose`.

use serde_json::{Map, Value as Json, json};

use super::super::ConfigError;
use super::fields::Fields;
use super::node::{Node, refuse};
use super::service::set;
use super::values;

/// Most ports of one entry.
const MAX_RANGE: u16 = 1024;

/// Reads both.
pub fn read(fields: &mut Fields<'_>, body: &mut Json) -> Result<(), ConfigError> {
    let (mut exposed, mut bindings) = (Map::new(), Map::<String, Json>::new());
    let path = fields.name("expose");
    if let Some(node) = fields.take("expose") {
        for text in values::texts(&path, node)? {
            let (ports, proto) = text.split_once('/').unwrap_or((&text, "tcp"));
            let Some((first, last)) = range(ports) else {
                return refuse(node.at, &path, format!("= {text:.60?} is no port"));
            };
            for port in first..=last {
                exposed.insert(format!("{port}/{proto}"), json!({}));
            }
        }
    }
    let path = fields.name("ports");
    if let Some(node) = fields.take("ports") {
        for node in node.list(&path)? {
            for (inside, binding) in if node.is_table() { long(&path, node)? } else { short(&path, node)? } {
                exposed.insert(inside.clone(), json!({}));
                if let Json::Array(list) = bindings.entry(inside).or_insert_with(|| json!([])) {
                    list.push(binding);
                }
            }
        }
    }
    if !exposed.is_empty() {
        set(body, "ExposedPorts", Json::Object(exposed));
    }
    if !bindings.is_empty() {
        set(body, "HostConfig.PortBindings", Json::Object(bindings));
    }
    Ok(())
}

type Bindings = Vec<(String, Json)>;

/// `[[address:]published:]target[/protocol]`, each port also a range.
fn short(path: &str, node: &Node) -> Result<Bindings, ConfigError> {
    let text = node.text(path)?;
    let (ports, proto) = text.split_once('/').unwrap_or((&text, "tcp"));
    let (host, target) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (ip, published) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, published)) => (ip, published.trim_start_matches(':')),
        None => host.rsplit_once(':').unwrap_or(("", host)),
    };
    pair(ip, published, target, proto).map_or_else(
        || refuse(node.at, path, format!("= {text:.60?}: want [[address:]published:]target[/protocol]")),
        Ok,
    )
}

fn long(path: &str, node: &Node) -> Result<Bindings, ConfigError> {
    let mut fields = Fields::open(path, node)?;
    let target = fields.needed("target")?;
    let published = fields.text("published")?.unwrap_or_default();
    let ip = fields.text("host_ip")?.unwrap_or_default();
    let proto = fields.text("protocol")?.unwrap_or_else(|| "tcp".into());
    // For people, and for swarms, of which a host is none.
    let (_, _) = (fields.text("name")?, fields.text("app_protocol")?);
    if fields.text("mode")?.is_some_and(|mode| mode != "host" && mode != "ingress") {
        return refuse(node.at, path, "mode is neither host nor ingress");
    }
    fields.finish()?;
    pair(&ip, &published, &target, &proto)
        .map_or_else(|| refuse(node.at, path, format!("publishes {published:.20?} to {target:.20?}: no ports")), Ok)
}

/// Pairs ports of two ranges; one target may have a range to choose from.
fn pair(ip: &str, published: &str, target: &str, proto: &str) -> Option<Bindings> {
    if !ip.is_empty() && ip.parse::<std::net::IpAddr>().is_err() || !matches!(proto, "tcp" | "udp" | "sctp") {
        return None;
    }
    let (first, last) = range(target)?;
    let one = |port: u16, host: String| (format!("{port}/{proto}"), json!({ "HostIp": ip, "HostPort": host }));
    if published.is_empty() {
        return Some((first..=last).map(|port| one(port, String::new())).collect());
    }
    let (host_first, host_last) = range(published)?;
    match (last - first, host_last - host_first) {
        (0, 0) => Some(vec![one(first, host_first.to_string())]),
        (0, _) => Some(vec![one(first, published.into())]),
        (a, b) if a == b => Some((0..=a).map(|n| one(first + n, (host_first + n).to_string())).collect()),
        _ => None,
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.parse::<u16>().ok()?, last.parse::<u16>().ok()?);
    (first > 0 && first <= last && last - first < MAX_RANGE).then_some((first, last))
}
