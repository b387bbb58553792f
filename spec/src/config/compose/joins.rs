//! What leads from one container to others: networks, shared namespaces, `depends_on`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json, json};

use super::super::ConfigError;
use super::super::declared::{Condition, Dependency};
use super::fields::Fields;
use super::node::{Node, refuse};
use super::service::set;
use super::values::{self, Kind};

/// What names mean in a Compose file. In `[[container]]`, where there is none, names are what they are.
#[derive(Default)]
pub struct Scope {
    /// `None`: there is no file.
    pub file: Option<Names>,
}

/// Names of a Compose file, and those that the host knows them by.
#[derive(Default)]
pub struct Names {
    pub services: BTreeMap<String, String>,
    pub networks: BTreeMap<String, String>,
    pub volumes: BTreeMap<String, String>,
    /// Which services are in that name no network.
    pub default_network: String,
}

impl Scope {
    fn find(
        &self,
        of: fn(&Names) -> &BTreeMap<String, String>,
        what: &str,
        path: &str,
        node: &Node,
        name: &str,
    ) -> Result<String, ConfigError> {
        match &self.file {
            None => Ok(name.into()),
            Some(names) => match of(names).get(name) {
                Some(known) => Ok(known.clone()),
                None => refuse(node.at, path, format!("names {name:.60?}, which is no {what} of this file")),
            },
        }
    }

    pub fn volume(&self, path: &str, node: &Node, name: &str) -> Result<String, ConfigError> {
        self.find(|names| &names.volumes, "volume", path, node, name)
    }

    fn network(&self, path: &str, node: &Node, name: &str) -> Result<String, ConfigError> {
        match &self.file {
            Some(names) if name == "default" => Ok(names.default_network.clone()),
            _ => self.find(|names| &names.networks, "network", path, node, name),
        }
    }

    fn service(&self, path: &str, node: &Node, name: &str) -> Result<String, ConfigError> {
        self.find(|names| &names.services, "service", path, node, name)
    }
}

/// `depends_on`: a list, or a table with conditions.
pub fn depends_on(fields: &mut Fields<'_>, scope: &Scope) -> Result<Vec<Dependency>, ConfigError> {
    let path = fields.name("depends_on");
    let Some(node) = fields.take("depends_on") else { return Ok(Vec::new()) };
    if !node.is_table() {
        let started = |name: String| {
            Ok(Dependency { container: scope.service(&path, node, &name)?, condition: Condition::Started })
        };
        return values::texts(&path, node)?.into_iter().map(started).collect();
    }
    let mut all = Vec::new();
    for (key, node) in node.table(&path)? {
        let container = scope.service(&path, node, &key.text)?;
        let mut inner = Fields::open(format!("{path}.{}", key.text), node)?;
        let condition = match inner.text("condition")?.as_deref() {
            None | Some("service_started") => Condition::Started,
            Some("service_healthy") => Condition::Healthy,
            Some("service_completed_successfully") => Condition::Completed,
            Some(other) => {
                let want = "want service_started, service_healthy or service_completed_successfully";
                return refuse(node.at, &inner.name("condition"), format!("= {other:.40?}: {want}"));
            }
        };
        // What is declared is there, so that nothing is ever left out.
        inner.flag("required")?;
        inner.finish()?;
        all.push(Dependency { container, condition });
    }
    Ok(all)
}

/// `networks`, `network_mode`, `pid`, `ipc`. A namespace of another container makes one depend on it.
pub fn networks(
    fields: &mut Fields<'_>,
    body: &mut Json,
    scope: &Scope,
    service: Option<&str>,
    depends_on: &mut Vec<Dependency>,
) -> Result<(), ConfigError> {
    let mut mode = None;
    for (key, place) in
        [("network_mode", "HostConfig.NetworkMode"), ("pid", "HostConfig.PidMode"), ("ipc", "HostConfig.IpcMode")]
    {
        let path = fields.name(key);
        let Some(node) = fields.take(key) else { continue };
        let text = node.text(&path)?;
        let (text, other) = match (text.strip_prefix("service:"), text.strip_prefix("container:")) {
            (Some(name), _) => {
                let name = scope.service(&path, node, name)?;
                (format!("container:{name}"), Some(name))
            }
            (None, Some(name)) if scope.file.is_none() => (text.clone(), Some(name.to_owned())),
            _ => (text, None),
        };
        if let Some(container) = other
            && !depends_on.iter().any(|known| known.container == container)
        {
            depends_on.push(Dependency { container, condition: Condition::Started });
        }
        if key == "network_mode" {
            mode = Some(text.clone());
        }
        set(body, place, json!(text));
    }
    let path = fields.name("networks");
    let asked = fields.take("networks");
    let mut endpoints = Map::new();
    let mut first = None;
    if let Some(node) = asked {
        if mode.is_some() {
            return refuse(node.at, &path, "stands beside network_mode: give one of them");
        }
        match node.is_table() {
            true => {
                for (key, node) in node.table(&path)? {
                    let name = scope.network(&path, node, &key.text)?;
                    first.get_or_insert_with(|| name.clone());
                    endpoints.insert(name, endpoint(&format!("{path}.{}", key.text), node)?);
                }
            }
            false => {
                for name in values::texts(&path, node)? {
                    let name = scope.network(&path, node, &name)?;
                    first.get_or_insert_with(|| name.clone());
                    endpoints.insert(name, json!({}));
                }
            }
        }
    } else if let (Some(names), None) = (&scope.file, &mode) {
        first = Some(names.default_network.clone());
        endpoints.insert(names.default_network.clone(), json!({}));
    }
    if let Some(service) = service {
        // Containers find each other by the names of their services, whatever the containers are called.
        for endpoint in endpoints.values_mut() {
            match endpoint.get_mut("Aliases").and_then(Json::as_array_mut) {
                Some(list) => list.push(json!(service)),
                None => endpoint["Aliases"] = json!([service]),
            }
        }
    }
    if let Some(first) = first {
        set(body, "HostConfig.NetworkMode", json!(first));
        set(body, "NetworkingConfig.EndpointsConfig", Json::Object(endpoints));
    }
    Ok(())
}

fn endpoint(path: &str, node: &Node) -> Result<Json, ConfigError> {
    let mut fields = Fields::open(path, node)?;
    let mut endpoint = json!({});
    for (key, place, kind) in [
        ("aliases", "Aliases", Kind::Texts),
        ("ipv4_address", "IPAMConfig.IPv4Address", Kind::Text),
        ("ipv6_address", "IPAMConfig.IPv6Address", Kind::Text),
        ("mac_address", "MacAddress", Kind::Text),
        ("gw_priority", "GwPriority", Kind::Number),
    ] {
        if let Some(value) = fields.json(key, kind)? {
            set(&mut endpoint, place, value);
        }
    }
    fields.finish()?;
    Ok(endpoint)
}
