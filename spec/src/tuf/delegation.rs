//! Whom a targets role trusts with which files (section 4.5).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::pattern;
use super::roles::{Key, Role, RoleKeys};

/// Whom a targets role trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegations {
    /// Keys by their IDs.
    pub keys: BTreeMap<String, Key>,
    /// The roles, the most trusted first.
    #[serde(default)]
    pub roles: Vec<DelegatedRole>,
}

/// A role that is trusted with some files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegatedRole {
    /// Its name.
    pub name: String,
    /// Whose signatures count for it.
    #[serde(flatten)]
    pub keys: RoleKeys,
    /// Whether no later role is asked for files that this one is trusted with.
    #[serde(default)]
    pub terminating: bool,
    /// Names of its files, as patterns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// How the SHA-256 of the names of its files begin, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_hash_prefixes: Option<Vec<String>>,
}

impl DelegatedRole {
    /// Whether it is trusted with a file; `sha256_hex` is the digest of the file's name.
    pub fn covers(&self, path: &str, sha256_hex: &str) -> bool {
        match (&self.paths, &self.path_hash_prefixes) {
            (Some(patterns), None) => patterns.iter().any(|pattern| pattern::matches(pattern, path)),
            (None, Some(prefixes)) => prefixes.iter().any(|prefix| sha256_hex.starts_with(prefix.as_str())),
            _ => false,
        }
    }

    fn check(&self) -> Result<(), String> {
        let name: String = self.name.chars().take(40).collect();
        if name.is_empty() || Role::ALL.iter().any(|role| role.name() == self.name) {
            return Err(format!("a delegated role is named {name:?}"));
        }
        if self.paths.is_some() == self.path_hash_prefixes.is_some() {
            return Err(format!("the role {name:?} wants either paths or path_hash_prefixes"));
        }
        self.keys.check(&name)
    }
}

impl Delegations {
    pub(super) fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        for role in &self.roles {
            role.check()?;
            if !names.insert(&role.name) {
                return Err(format!("the role {:?} is delegated to twice", role.name));
            }
        }
        Ok(())
    }
}
