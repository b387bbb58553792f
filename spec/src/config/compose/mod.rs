//! Containers, networks and volumes as people declare them: the keys of the Compose specification (compose-spec.io), in
//! TOML as `[[container]]`, `[[container_network]]` and `[[volume]]`, or as a whole Compose file in YAML. What isn't known is
//! refused by name with its place.
//!
//! - [`node`]: a value with its place; `from_toml` and `yaml` make it
//! - [`fields`]: the keys of a table, each looked at once
//! - [`values`]: sizes, times, words of a command
//! - [`service`]: one container; `ports`, `mounts`, `joins`: parts of it
//! - [`objects`]: networks and volumes
//! - [`file`](mod@file): a whole file; `order`: who depends on whom

mod fields;
pub(super) mod file;
pub(super) mod from_toml;
pub(super) mod joins;
mod mounts;
pub(super) mod node;
pub(super) mod objects;
pub(super) mod order;
mod ports;
pub(super) mod service;
mod values;
mod yaml;

#[cfg(test)]
mod tests;
