//! Networks and volumes.

use serde_json::{Value as Json, json};

use super::super::declared::DeclaredObject;
use super::super::{ConfigError, check};
use super::fields::Fields;
use super::node::{Node, refuse};
use super::service::set;
use super::values::Kind;

/// What a table describes.
pub enum Described {
    /// It is to be made.
    Own(DeclaredObject),
    /// It is there already, or somebody else's.
    Foreign(String),
}

impl Described {
    pub fn name(&self) -> &str {
        match self {
            Self::Own(object) => &object.name,
            Self::Foreign(name) => name,
        }
    }
}

/// A network. `usual`: its name where it has none of its own.
pub fn network(path: &str, node: &Node, usual: Option<&str>) -> Result<Described, ConfigError> {
    let mut fields = Fields::open(path, node)?;
    let name = name(&mut fields, node, usual)?;
    if fields.flag("external")? == Some(true) {
        fields.finish()?;
        return Ok(Described::Foreign(name));
    }
    if matches!(name.as_str(), "bridge" | "host" | "none" | "default") {
        return refuse(node.at, path, format!("name = {name:?} is that of a network which is always there"));
    }
    let mut create = json!({ "Name": name });
    for (key, place, kind) in [
        ("driver", "Driver", Kind::Text),
        ("driver_opts", "Options", Kind::Pairs),
        ("internal", "Internal", Kind::Flag),
        ("attachable", "Attachable", Kind::Flag),
        ("enable_ipv6", "EnableIPv6", Kind::Flag),
        ("labels", "Labels", Kind::Pairs),
    ] {
        if let Some(value) = fields.json(key, kind)? {
            create[place] = value;
        }
    }
    let ipam_path = fields.name("ipam");
    if let Some(node) = fields.take("ipam") {
        create["IPAM"] = ipam(&ipam_path, node)?;
    }
    fields.finish()?;
    Ok(Described::Own(DeclaredObject { name, create }))
}

fn ipam(path: &str, node: &Node) -> Result<Json, ConfigError> {
    let mut fields = Fields::open(path, node)?;
    let mut ipam = json!({});
    for (key, place, kind) in [("driver", "Driver", Kind::Text), ("options", "Options", Kind::Pairs)] {
        if let Some(value) = fields.json(key, kind)? {
            ipam[place] = value;
        }
    }
    let path = fields.name("config");
    if let Some(node) = fields.take("config") {
        let mut pools = Vec::new();
        for node in node.list(&path)? {
            let mut pool = json!({});
            let mut inner = Fields::open(&path, node)?;
            for (key, place, kind) in [
                ("subnet", "Subnet", Kind::Text),
                ("ip_range", "IPRange", Kind::Text),
                ("gateway", "Gateway", Kind::Text),
                ("aux_addresses", "AuxiliaryAddresses", Kind::Pairs),
            ] {
                if let Some(value) = inner.json(key, kind)? {
                    set(&mut pool, place, value);
                }
            }
            inner.finish()?;
            pools.push(pool);
        }
        ipam["Config"] = json!(pools);
    }
    fields.finish()?;
    Ok(ipam)
}

/// A volume.
pub fn volume(path: &str, node: &Node, usual: Option<&str>) -> Result<Described, ConfigError> {
    let mut fields = Fields::open(path, node)?;
    let name = name(&mut fields, node, usual)?;
    if fields.flag("external")? == Some(true) {
        fields.finish()?;
        return Ok(Described::Foreign(name));
    }
    let mut create = json!({ "Name": name });
    for (key, place, kind) in [
        ("driver", "Driver", Kind::Text),
        ("driver_opts", "DriverOpts", Kind::Pairs),
        ("labels", "Labels", Kind::Pairs),
    ] {
        if let Some(value) = fields.json(key, kind)? {
            create[place] = value;
        }
    }
    fields.finish()?;
    Ok(Described::Own(DeclaredObject { name, create }))
}

fn name(fields: &mut Fields<'_>, node: &Node, usual: Option<&str>) -> Result<String, ConfigError> {
    let path = fields.path.clone();
    let Some(name) = fields.text("name")?.or_else(|| usual.map(str::to_owned)) else {
        return refuse(node.at, &path, "has no name");
    };
    match check::object_name(&name) {
        Ok(()) => Ok(name),
        Err(why) => refuse(node.at, &path, format!("name = {name:.60?} {why}")),
    }
}
