//! What of containers a machine config declares: each object as the body of the Docker Engine API's call that makes
//! it, and what has to be known beside.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Containers, networks and volumes that this machine is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Declared {
    /// Containers; each comes after those that it depends on.
    pub containers: Vec<DeclaredContainer>,
    /// Networks.
    pub networks: Vec<DeclaredObject>,
    /// Volumes.
    pub volumes: Vec<DeclaredObject>,
}

/// A network or a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredObject {
    /// Its name.
    pub name: String,
    /// Body of `POST /networks/create` or `/volumes/create`.
    pub create: Value,
}

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeclaredContainer {
    /// Its name.
    pub name: String,
    /// Its image.
    pub image: String,
    /// When that is pulled.
    #[serde(default)]
    pub pull: PullPolicy,
    /// What has to be before it starts.
    #[serde(default)]
    pub depends_on: Vec<Dependency>,
    /// Body of `POST /containers/create`.
    pub create: Value,
}

/// What has to be of another container before one starts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// The other's name.
    pub container: String,
    /// What it has to be.
    pub condition: Condition,
}

/// What a container has to be for those that depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It runs.
    #[default]
    Started,
    /// Its health check has passed.
    Healthy,
    /// It has ended with 0 since the host booted.
    Completed,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// When it isn't there.
    #[default]
    Missing,
    /// Once at each boot, too.
    Always,
    /// Never.
    Never,
}
