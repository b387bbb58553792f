//! The keys of a table, each looked at once; what is left over is unknown.

use super::super::ConfigError;
use super::node::{Key, Node, Place, refuse};
use super::values::{self, Kind};

/// A table that is being read.
pub struct Fields<'a> {
    /// Keys that lead to it, `services.web`.
    pub path: String,
    pub at: Place,
    left: Vec<(&'a Key, &'a Node)>,
}

impl<'a> Fields<'a> {
    /// Begins to read a table; a key that is there twice is refused.
    pub fn open(path: impl Into<String>, node: &'a Node) -> Result<Self, ConfigError> {
        let path = path.into();
        let entries = node.table(&path)?;
        let mut left: Vec<(&Key, &Node)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            if left.iter().any(|(known, _)| known.text == key.text) {
                return refuse(key.at, &join(&path, &key.text), "is there twice");
            }
            left.push((key, value));
        }
        Ok(Self { path, at: node.at, left })
    }

    /// The whole name of a key.
    pub fn name(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// The value of a key.
    pub fn take(&mut self, key: &str) -> Option<&'a Node> {
        let at = self.left.iter().position(|(known, _)| known.text == key)?;
        Some(self.left.remove(at).1)
    }

    /// The same, as one of the usual kinds.
    pub fn json(&mut self, key: &str, kind: Kind) -> Result<Option<serde_json::Value>, ConfigError> {
        let name = self.name(key);
        self.take(key).map(|node| values::json(&name, node, kind)).transpose()
    }

    /// A plain text.
    pub fn text(&mut self, key: &str) -> Result<Option<String>, ConfigError> {
        let name = self.name(key);
        self.take(key).map(|node| node.text(&name)).transpose()
    }

    /// A plain text that must be there.
    pub fn needed(&mut self, key: &str) -> Result<String, ConfigError> {
        match self.text(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            _ => refuse(self.at, &self.path, format!("has no {key}")),
        }
    }

    /// True or false.
    pub fn flag(&mut self, key: &str) -> Result<Option<bool>, ConfigError> {
        let name = self.name(key);
        self.take(key).map(|node| values::flag(&name, node)).transpose()
    }

    /// Refuses the first key that nobody asked for. Those that begin with `x-` are the author's own.
    pub fn finish(self) -> Result<(), ConfigError> {
        match self.left.iter().find(|(key, _)| !key.text.starts_with("x-")) {
            Some((key, _)) => refuse(key.at, &join(&self.path, &key.text), values::why_unknown(&key.text)),
            None => Ok(()),
        }
    }
}

fn join(path: &str, key: &str) -> String {
    let key: String = key.chars().take(60).collect();
    if path.is_empty() { key } else { format!("{path}.{key}") }
}
