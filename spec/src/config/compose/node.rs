//! A value with its place in the text.

use super::super::ConfigError;

/// Line and column, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub at: Place,
    pub value: Value,
}

/// A value of TOML or YAML.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Flag(bool),
    /// As it is written.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Table(Vec<(Key, Node)>),
}

/// A table's key.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    pub at: Place,
    pub text: String,
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// Refuses what stands at a place.
pub fn refuse<T>(at: Place, key: &str, reason: impl Into<String>) -> Result<T, ConfigError> {
    let key = (!key.is_empty()).then(|| key.into());
    Err(ConfigError { line: at.line, column: at.column, key, reason: reason.into() })
}

impl Node {
    /// The text of a plain value; numbers and flags are taken as they are written.
    pub fn text(&self, key: &str) -> Result<String, ConfigError> {
        match &self.value {
            Value::Text(text) | Value::Number(text) => {
                if text.contains('\0') {
                    return refuse(self.at, key, "holds a NUL byte");
                }
                Ok(text.clone())
            }
            Value::Flag(flag) => Ok(flag.to_string()),
            Value::Null => refuse(self.at, key, "has no value"),
            Value::List(_) | Value::Table(_) => refuse(self.at, key, "wants one value"),
        }
    }

    /// The values of a list; a plain value is a list of one.
    pub fn list(&self, key: &str) -> Result<&[Node], ConfigError> {
        match &self.value {
            Value::List(list) => Ok(list),
            Value::Null => Ok(&[]),
            Value::Table(_) => refuse(self.at, key, "wants a list"),
            _ => Ok(std::slice::from_ref(self)),
        }
    }

    /// The entries of a table; none at all is an empty one.
    pub fn table(&self, key: &str) -> Result<&[(Key, Node)], ConfigError> {
        match &self.value {
            Value::Table(entries) => Ok(entries),
            Value::Null => Ok(&[]),
            _ => refuse(self.at, key, "wants a table of keys and values"),
        }
    }

    pub fn is_table(&self) -> bool {
        matches!(self.value, Value::Table(_))
    }
}
