//! What is known of an image.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use crate::digest::{Digest, ImageId};

/// An image in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Digest of its config.
    pub id: ImageId,
    /// Names as Docker shows them: `alpine:3.20`, `registry.example/a/b:1`.
    pub tags: Vec<String>,
    /// Names with the digest of the manifest: `alpine@sha256:…`.
    pub digests: Vec<String>,
    /// Bytes of its unpacked layers.
    pub size_bytes: u64,
    /// When it was made, RFC 3339, as its config says; empty: unknown.
    pub created: String,
    /// `amd64`
    pub architecture: String,
    /// `linux`
    pub os: String,
    /// Author, as the config says.
    pub author: String,
    /// What containers of this image run with.
    pub config: ImageConfig,
    /// Diff IDs of the layers, lowest first.
    pub layers: Vec<Digest>,
    /// How the layers came to be, lowest first.
    pub history: Vec<History>,
    /// Bytes of each unpacked layer, lowest first.
    pub layer_bytes: Vec<u64>,
    /// Comment of its last step.
    pub comment: String,
    /// Microarchitecture, where the config names one.
    pub variant: String,
    /// When it got a name last, seconds since 1970; `None`: never, or unknown.
    pub tagged_unix_s: Option<i64>,
}

/// What containers of an image run with (OCI image spec, config.md, `config`; Docker adds a few).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageConfig {
    /// User: name or number, with `:group`.
    #[serde(deserialize_with = "nullable")]
    pub user: String,
    /// `80/tcp` and the like.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `NAME=value`
    #[serde(deserialize_with = "nullable")]
    pub env: Vec<String>,
    /// First words of the command.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// Further words, or the whole command without an entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Folders that get a volume of their own.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Working folder; empty: `/`.
    #[serde(deserialize_with = "nullable")]
    pub working_dir: String,
    /// Labels.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the container to stop, `SIGTERM` if none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How to tell that it is well (Docker's addition).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions for images built on this one (Docker's addition).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_build: Option<Vec<String>>,
    /// Shell for the shell form of commands (Docker's addition).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// A JSON object without content: how Go writes a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Empty {}

/// How to tell that a container is well. Times are in nanoseconds, 0: the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` with words, or `CMD-SHELL` with a line.
    #[serde(deserialize_with = "nullable")]
    pub test: Vec<String>,
    /// Between two checks, ns.
    pub interval: i64,
    /// For one check, ns.
    pub timeout: i64,
    /// For starting up, ns.
    pub start_period: i64,
    /// Between checks while starting up, ns.
    pub start_interval: i64,
    /// Failures in a row that make it unhealthy.
    pub retries: i64,
}

/// How a layer came to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(deserialize_with = "nullable")]
    pub created: String,
    /// By whom.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// By which command.
    #[serde(deserialize_with = "nullable")]
    pub created_by: String,
    /// Comment.
    #[serde(deserialize_with = "nullable")]
    pub comment: String,
    /// Whether this step made no layer.
    pub empty_layer: bool,
}

/// Go writes `null` for what is empty.
pub(crate) fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(input: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(input).map(Option::unwrap_or_default)
}
