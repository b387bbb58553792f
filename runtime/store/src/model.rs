//! JSON of registries and archives: OCI image spec 1.1 (manifest.md, image-index.md, config.md) and Docker's
//! schema 2. Unknown fields are passed over; what is used is checked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::Error;
use crate::image::{History, ImageConfig, nullable};

/// Longest manifest or index; registries refuse longer ones too.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Longest config.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Layers of an image: overlayfs takes 500 below.
pub const MAX_LAYERS: usize = 500;
/// Media types that are asked for.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// Points at content.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// Digest.
    pub digest: Digest,
    /// Length.
    #[serde(default)]
    pub size: u64,
    /// For which machines, in an index.
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
}

/// Which machines an image is for.
#[derive(Clone, Debug, Deserialize)]
pub struct Platform {
    /// `amd64`
    #[serde(default)]
    pub architecture: String,
    /// `linux`
    #[serde(default)]
    pub os: String,
    /// Microarchitecture: empty, `v1`, `v2`, …
    #[serde(default)]
    pub variant: String,
}

/// What a registry calls a manifest: of an image, or an index of several.
#[derive(Clone, Debug)]
pub enum Manifest {
    /// One image.
    Image(ImageManifest),
    /// Several, for different machines.
    Index(Vec<Descriptor>),
}

/// Manifest of an image.
#[derive(Clone, Debug, Deserialize)]
pub struct ImageManifest {
    /// Its config.
    pub config: Descriptor,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// Reads a manifest. `what` names it in errors.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Either {
            schema_version: Option<u32>,
            manifests: Option<Vec<Descriptor>>,
            config: Option<Descriptor>,
            layers: Option<Vec<Descriptor>>,
        }
        let invalid = |reason: String| Error::Invalid { what: what.to_owned(), reason };
        let either: Either =
            serde_json::from_slice(bytes).map_err(|error| invalid(format!("not a manifest ({error})")))?;
        if either.schema_version == Some(1) {
            return Err(invalid("manifests of schema 1 are no longer supported; push the image anew".into()));
        }
        match (either.manifests, either.config, either.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(manifests)),
            (None, Some(config), Some(layers)) if layers.len() <= MAX_LAYERS => {
                Ok(Self::Image(ImageManifest { config, layers }))
            }
            (None, Some(_), Some(layers)) => Err(invalid(format!("{} layers, more than {MAX_LAYERS}", layers.len()))),
            _ => Err(invalid("neither a manifest of an image nor an index".into())),
        }
    }
}

/// The entry of an index for this machine.
pub fn for_this_machine(index: &[Descriptor]) -> Option<&Descriptor> {
    let fits = |entry: &&Descriptor, variants: &[&str]| {
        entry.platform.as_ref().is_some_and(|platform| {
            platform.os == "linux" && platform.architecture == "amd64" && variants.contains(&platform.variant.as_str())
        })
    };
    // Higher variants need instructions that a machine may lack.
    index.iter().find(|entry| fits(entry, &["", "v1"])).or_else(|| match index {
        // An index of one without a platform is how some tools wrap a single image.
        [only] if only.platform.is_none() => Some(only),
        _ => None,
    })
}

/// Config of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfigFile {
    /// When made, RFC 3339.
    #[serde(deserialize_with = "nullable")]
    pub created: String,
    /// By whom.
    #[serde(deserialize_with = "nullable")]
    pub author: String,
    /// `amd64`
    #[serde(deserialize_with = "nullable")]
    pub architecture: String,
    /// `linux`
    #[serde(deserialize_with = "nullable")]
    pub os: String,
    /// What containers run with.
    #[serde(deserialize_with = "nullable")]
    pub config: ImageConfig,
    /// The layers.
    pub rootfs: RootFs,
    /// How they came to be.
    #[serde(deserialize_with = "nullable")]
    pub history: Vec<History>,
}

/// The layers of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RootFs {
    /// `layers`
    #[serde(rename = "type", default)]
    pub kind: String,
    /// Digests of the uncompressed archives, lowest first.
    #[serde(deserialize_with = "nullable")]
    pub diff_ids: Vec<Digest>,
}

impl ConfigFile {
    /// Reads a config and checks what the store relies on.
    pub fn parse(what: &str, bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Invalid { what: what.to_owned(), reason };
        let config: Self =
            serde_json::from_slice(bytes).map_err(|error| invalid(format!("not an image config ({error})")))?;
        let count = config.rootfs.diff_ids.len();
        if count > MAX_LAYERS {
            return Err(invalid(format!("{count} layers, more than {MAX_LAYERS}")));
        }
        if !matches!(config.os.as_str(), "" | "linux") || !matches!(config.architecture.as_str(), "" | "amd64") {
            return Err(Error::NoPlatform(what.to_owned()));
        }
        Ok(config)
    }
}

/// One image of `manifest.json` in an archive of `docker save`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveImage {
    /// File of the config.
    pub config: String,
    /// Names.
    #[serde(default, deserialize_with = "nullable")]
    pub repo_tags: Vec<String>,
    /// Files of the layers, lowest first.
    #[serde(default, deserialize_with = "nullable")]
    pub layers: Vec<String>,
}
