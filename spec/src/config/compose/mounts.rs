//! `volumes` and `tmpfs`.

use serde_json::{Map, Value as Json, json};

use super::super::ConfigError;
use super::fields::Fields;
use super::joins::Scope;
use super::node::{Node, refuse};
use super::service::set;
use super::values::{self, Kind};

/// A key, its place in the request, what its value is.
type Part = (&'static str, &'static str, Kind);

/// Reads both.
pub fn read(fields: &mut Fields<'_>, body: &mut Json, scope: &Scope) -> Result<(), ConfigError> {
    let (mut binds, mut mounts) = (Vec::new(), Vec::new());
    let path = fields.name("volumes");
    if let Some(node) = fields.take("volumes") {
        for node in node.list(&path)? {
            if node.is_table() {
                mounts.push(long(&path, node, scope)?);
            } else {
                binds.push(short(&path, node, scope)?);
            }
        }
    }
    if !binds.is_empty() {
        set(body, "HostConfig.Binds", json!(binds));
    }
    if !mounts.is_empty() {
        set(body, "HostConfig.Mounts", json!(mounts));
    }
    let path = fields.name("tmpfs");
    if let Some(node) = fields.take("tmpfs") {
        let mut all = Map::new();
        for text in values::texts(&path, node)? {
            let (target, options) = text.split_once(':').unwrap_or((&text, ""));
            all.insert(target.into(), json!(options));
        }
        set(body, "HostConfig.Tmpfs", Json::Object(all));
    }
    Ok(())
}

/// `source:target[:options]`, or a target alone.
fn short(path: &str, node: &Node, scope: &Scope) -> Result<String, ConfigError> {
    let text = node.text(path)?;
    let Some((source, rest)) = text.split_once(':') else { return Ok(text) };
    if source.starts_with(['.', '~']) {
        return refuse(node.at, path, format!("= {text:.60?}: a host has no folder that it could be relative to"));
    }
    if source.starts_with('/') {
        return Ok(text);
    }
    Ok(format!("{}:{rest}", scope.volume(path, node, source)?))
}

fn long(path: &str, node: &Node, scope: &Scope) -> Result<Json, ConfigError> {
    let mut fields = Fields::open(path, node)?;
    let kind = fields.needed("type")?;
    let mut mount = json!({ "Type": kind, "Target": fields.needed("target")? });
    let source = fields.text("source")?.unwrap_or_default();
    mount["Source"] = match kind.as_str() {
        "volume" if !source.is_empty() => json!(scope.volume(path, node, &source)?),
        "bind" if !source.starts_with('/') => {
            return refuse(node.at, path, "wants a whole path as the source of a bind");
        }
        "bind" | "volume" | "tmpfs" => json!(source),
        other => return refuse(node.at, path, format!("type = {other:.40?}: want bind, volume or tmpfs")),
    };
    if let Some(read_only) = fields.flag("read_only")? {
        mount["ReadOnly"] = json!(read_only);
    }
    let parts: [(&str, &str, &[Part]); 3] = [
        (
            "bind",
            "BindOptions",
            &[("propagation", "Propagation", Kind::Text), ("create_host_path", "CreateMountpoint", Kind::Flag)],
        ),
        ("volume", "VolumeOptions", &[("nocopy", "NoCopy", Kind::Flag), ("subpath", "Subpath", Kind::Text)]),
        ("tmpfs", "TmpfsOptions", &[("size", "SizeBytes", Kind::Bytes), ("mode", "Mode", Kind::Number)]),
    ];
    for (part, place, keys) in parts {
        let path = fields.name(part);
        let Some(node) = fields.take(part) else { continue };
        if part != kind {
            return refuse(node.at, &path, format!("is not for a mount of type {kind}"));
        }
        let mut inner = Fields::open(&path, node)?;
        for (key, name, kind) in keys {
            if let Some(value) = inner.json(key, *kind)? {
                mount[place][name] = value;
            }
        }
        inner.finish()?;
    }
    fields.finish()?;
    Ok(mount)
}
