//! What a client asks for, and what it is told.

use std::collections::{BTreeMap, HashMap};

use bollard_stubs::models::HostConfig;
use keel_store::{Auth, ImageId, Progress, Reference};

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Path of the Dockerfile in the context.
    pub dockerfile: String,
    /// Names that the image gets.
    pub names: Vec<Reference>,
    /// Build arguments.
    pub arguments: BTreeMap<String, String>,
    /// Labels that the image gets.
    pub labels: BTreeMap<String, String>,
    /// The stage that is wanted; `None`: the last.
    pub target: Option<String>,
    /// Takes every step anew.
    pub no_cache: bool,
    /// Pulls base images even if they are here.
    pub pull: bool,
    /// Tells the image's ID alone, unless the build fails.
    pub quiet: bool,
    /// For which machine, `linux/amd64`.
    pub platform: Option<String>,
    /// Limits, network and hosts of the containers that commands run in.
    pub host: HostConfig,
    /// Credentials by registry.
    pub auths: HashMap<String, Auth>,
}

/// What a client is told while a build is under way.
#[derive(Clone, Debug)]
pub enum Told {
    /// Text for people.
    Text(String),
    /// How the pull of a base image goes on.
    Pull(Progress),
    /// The image is done.
    Image(ImageId),
}
