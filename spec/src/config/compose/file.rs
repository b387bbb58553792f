//! A whole Compose file.

use super::super::ConfigError;
use super::super::declared::{DeclaredContainer, DeclaredObject};
use super::fields::Fields;
use super::joins::{Names, Scope};
use super::node::{Node, Place, refuse};
use super::objects::{self, Described};
use super::{service, values, yaml};

/// What a file, or all of a machine config, declares.
#[derive(Default)]
pub struct Found {
    pub containers: Vec<(Place, DeclaredContainer)>,
    pub networks: Vec<(Place, DeclaredObject)>,
    pub volumes: Vec<(Place, DeclaredObject)>,
}

/// Reads a Compose file; places are those of its own text.
pub fn read(text: &str) -> Result<Found, ConfigError> {
    let root = yaml::node(text)?;
    let mut fields = Fields::open("", &root)?;
    // Obsolete, and still in most files.
    fields.text("version")?;
    let project = fields.text("name")?.unwrap_or_else(|| "compose".into());
    let mut found = Found::default();
    let mut names = Names { default_network: format!("{project}_default"), ..Names::default() };
    let mut default_is_described = false;
    if let Some(node) = fields.take("networks") {
        for (key, node) in node.table("networks")? {
            let path = format!("networks.{}", key.text);
            let is_default = key.text == "default";
            let usual = if is_default { names.default_network.clone() } else { key.text.clone() };
            let described = objects::network(&path, node, Some(&usual))?;
            if is_default {
                names.default_network = described.name().into();
                default_is_described = true;
            }
            names.networks.insert(key.text.clone(), described.name().into());
            if let Described::Own(object) = described {
                found.networks.push((key.at, object));
            }
        }
    }
    if let Some(node) = fields.take("volumes") {
        for (key, node) in node.table("volumes")? {
            let described = objects::volume(&format!("volumes.{}", key.text), node, Some(&key.text))?;
            names.volumes.insert(key.text.clone(), described.name().into());
            if let Described::Own(object) = described {
                found.volumes.push((key.at, object));
            }
        }
    }
    let services = fields.take("services");
    let at = fields.at;
    fields.finish()?;
    let Some(services) = services else { return refuse(at, "services", "is missing") };
    let services = services.table("services")?;
    if services.len() > values::MAX_ENTRIES {
        return refuse(at, "services", format!("has more than {} entries", values::MAX_ENTRIES));
    }
    for (key, node) in services {
        names.services.insert(key.text.clone(), container_name(node).unwrap_or_else(|| key.text.clone()));
    }
    let default_network = names.default_network.clone();
    let scope = Scope { file: Some(names) };
    for (key, node) in services {
        let path = format!("services.{}", key.text);
        found.containers.push((key.at, service::read(&path, node, Some(&key.text), &scope)?));
    }
    let on_default = |(_, container): &(Place, DeclaredContainer)| {
        container.create["HostConfig"]["NetworkMode"] == default_network.as_str()
            || !container.create["NetworkingConfig"]["EndpointsConfig"][&default_network].is_null()
    };
    if !default_is_described && found.containers.iter().any(on_default) {
        let create = serde_json::json!({ "Name": default_network });
        found.networks.push((at, DeclaredObject { name: default_network, create }));
    }
    Ok(found)
}

fn container_name(service: &Node) -> Option<String> {
    let entries = service.table("").ok()?;
    entries.iter().find(|(key, _)| key.text == "container_name").and_then(|(_, node)| node.text("").ok())
}
