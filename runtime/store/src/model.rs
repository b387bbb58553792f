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

/// OCI's media type of an index.
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// OCI's media type of a manifest.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's media type of a config.
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// OCI's media type of a layer as it is.
pub const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// OCI's media type of a layer with gzip.
pub const GZIP_LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// Points at content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Digest.
    pub digest: Digest,
    /// Length.
    #[serde(default)]
    pub size: u64,
    /// For which machines, in an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Annotations.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Points at bytes in memory.
    pub fn of(media_type: &str, bytes: &[u8]) -> Self {
        Self::new(media_type, Digest::of(bytes), bytes.len() as u64)
    }

    /// Points at content of this digest and length.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self { media_type: media_type.into(), digest, size, platform: None, annotations: BTreeMap::new() }
    }
}

/// Which machines an image is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// `amd64`
    #[serde(default)]
    pub architecture: String,
    /// `linux`
    #[serde(default)]
    pub os: String,
    /// Microarchitecture: empty, `v1`, `v2`, …
    #[serde(default, skip_serializing_if = "String::is_empty")]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// 2
    #[serde(default)]
    pub schema_version: u32,
    /// What it is.
    #[serde(default)]
    pub media_type: String,
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
            #[serde(default)]
            media_type: String,
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
                Ok(Self::Image(ImageManifest { schema_version: 2, media_type: either.media_type, config, layers }))
            }
            (None, Some(_), Some(layers)) => Err(invalid(format!("{} layers, more than {MAX_LAYERS}", layers.len()))),
            _ => Err(invalid("neither a manifest of an image nor an index".into())),
        }
    }
}

impl Platform {
    /// What was asked for as `os[/architecture[/variant]]`, if it runs here.
    pub fn runnable(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_ascii_lowercase);
        let os = parts.next().filter(|os| os == "linux")?;
        let architecture = parts.next().unwrap_or_else(|| "amd64".into());
        let architecture = if architecture == "x86_64" { "amd64".into() } else { architecture };
        let variant = parts.next().unwrap_or_default();
        let fits = architecture == "amd64" && matches!(variant.as_str(), "" | "v1" | "v2" | "v3" | "v4");
        (fits && parts.next().is_none()).then_some(Self { architecture, os, variant })
    }

    /// The entry of an index for this platform. Without a variant asked for, the one that runs everywhere: higher ones
    /// need instructions that a machine may lack.
    pub fn choose<'a>(&self, index: &'a [Descriptor]) -> Option<&'a Descriptor> {
        let fits = |entry: &&Descriptor, variants: &[&str]| {
            entry.platform.as_ref().is_some_and(|platform| {
                platform.os == self.os
                    && platform.architecture == self.architecture
                    && variants.contains(&platform.variant.as_str())
            })
        };
        let exact = index.iter().find(|entry| !self.variant.is_empty() && fits(entry, &[&self.variant]));
        exact.or_else(|| index.iter().find(|entry| fits(entry, &["", "v1"]))).or(match index {
            // An index of one without a platform is how some tools wrap a single image.
            [only] if only.platform.is_none() => Some(only),
            _ => None,
        })
    }
}

/// Whether images for `os[/architecture[/variant]]` run on this machine.
pub fn runs_here(platform: &str) -> bool {
    Platform::runnable(platform).is_some()
}

/// `linux/amd64`, with a variant `linux/amd64/v2`.
impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
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
    /// Microarchitecture: empty, `v1`, `v2`, …
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub variant: String,
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
            return Err(Error::NoPlatform(what.to_owned(), "linux/amd64".into()));
        }
        Ok(config)
    }
}

/// One image of `manifest.json` in an archive of `docker save`.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entry_of_an_index_is_what_runs_here_or_what_was_asked_for() {
        let entry = |number: u8, os: &str, architecture: &str, variant: &str| Descriptor {
            platform: Some(Platform { os: os.into(), architecture: architecture.into(), variant: variant.into() }),
            ..Descriptor::of("", &[number])
        };
        let index = [
            entry(0, "linux", "arm64", ""),
            entry(1, "linux", "amd64", "v3"),
            entry(2, "windows", "amd64", ""),
            entry(3, "linux", "amd64", ""),
        ];
        let chosen = |text| Platform::runnable(text).and_then(|platform| platform.choose(&index).map(|e| e.digest));
        assert_eq!(chosen("linux/amd64"), Some(Digest::of(&[3])));
        assert_eq!(chosen("linux/amd64/v3"), Some(Digest::of(&[1])));
        assert_eq!(chosen("linux/amd64/v2"), Some(Digest::of(&[3])));
        for text in ["linux/arm64", "windows/amd64", "linux/amd64/x", "linux/amd64/v1/x", ""] {
            assert_eq!(chosen(text), None, "{text}");
        }
    }
}
