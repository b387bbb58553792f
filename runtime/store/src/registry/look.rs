//! Looking without pulling: what a registry has under a name, and what it finds.

use serde::{Deserialize, Serialize};

use super::challenge::encode;
use super::client::{Ask, Registry};
use crate::error::Error;
use crate::model::{ConfigFile, Descriptor, MAX_CONFIG_BYTES, Manifest, Platform};
use crate::reference::Reference;
use crate::remote::Auth;
use crate::store::Store;

/// Longest answer to a search.
const MAX_SEARCH_BYTES: u64 = 4 << 20;
/// Most results that are asked for.
const MAX_RESULTS: u32 = 100;
/// Longest page of a list of tags.
const MAX_TAGS_BYTES: u64 = 4 << 20;
/// Tags that are asked for at a time.
const TAGS_PER_PAGE: usize = 1000;
/// Most tags of a repository.
const MAX_TAGS: usize = 100_000;

/// What a registry has under a name.
#[derive(Clone, Debug)]
pub struct Distribution {
    /// The manifest or index.
    pub descriptor: Descriptor,
    /// What it runs on.
    pub platforms: Vec<Platform>,
}

/// One image found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SearchResult {
    /// Name.
    pub name: String,
    /// Description.
    pub description: String,
    /// Stars.
    pub star_count: i64,
    /// Whether the registry's owner looks after it.
    pub is_official: bool,
    /// Whether it is built by itself.
    pub is_automated: bool,
}

/// Looks a name up in its registry.
pub fn distribution(store: &Store, reference: &Reference, auth: Option<&Auth>) -> Result<Distribution, Error> {
    let registry = Registry::new(store, reference, auth);
    let (digest, bytes, media_type) = registry.manifest(&reference.manifest(), reference.digest())?;
    let platforms = match Manifest::parse(&format!("manifest of {reference}"), &bytes)? {
        Manifest::Index(entries) => entries.into_iter().filter_map(|entry| entry.platform).collect(),
        Manifest::Image(manifest) => {
            let config = registry.small_blob(&manifest.config.digest, MAX_CONFIG_BYTES)?;
            // Not `ConfigFile::parse`: what doesn't run here can be looked at.
            let config: ConfigFile = serde_json::from_slice(&config)
                .map_err(|error| registry.broken(format!("the image's config can't be read ({error})")))?;
            vec![Platform { architecture: config.architecture, os: config.os, variant: config.variant }]
        }
    };
    Ok(Distribution { descriptor: Descriptor::new(&media_type, digest, bytes.len() as u64), platforms })
}

/// All tags of a repository, as its first mirror that answers lists them (OCI distribution specification, "Listing Tags").
pub fn tags(store: &Store, reference: &Reference, auth: Option<&Auth>) -> Result<Vec<String>, Error> {
    let mut registries = Registry::with_mirrors(store, reference, auth).into_iter().peekable();
    while let Some(registry) = registries.next() {
        match tags_at(&registry) {
            Err(error) if registries.peek().is_some() => {
                log::info!("tags of {reference}: {error}; asking elsewhere");
            }
            other => return other,
        }
    }
    // There is always the registry itself.
    Ok(Vec::new())
}

fn tags_at(registry: &Registry<'_>) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        tags: Option<Vec<String>>,
    }
    let ask = Ask { max_bytes: MAX_TAGS_BYTES, ..Ask::default() };
    let mut tags: Vec<String> = Vec::new();
    loop {
        let last = tags.last().map(|tag| format!("&last={}", encode(tag))).unwrap_or_default();
        let url = registry.url(&format!("tags/list?n={TAGS_PER_PAGE}{last}"));
        let (bytes, goes_on) = registry.retried(|| {
            let response = registry.send(&url, &ask)?;
            let goes_on = response.header("link").is_some_and(|link| link.contains("rel=\"next\""));
            Ok((response.bytes().map_err(|source| registry.fetch(source))?, goes_on))
        })?;
        let page: Page = serde_json::from_slice(&bytes)
            .map_err(|error| registry.broken(format!("its list of tags can't be read ({error})")))?;
        let page = page.tags.unwrap_or_default();
        // One that begins anew would never end.
        let is_new = page.first().is_some_and(|first| !tags.contains(first));
        tags.extend(page);
        if tags.len() > MAX_TAGS {
            return Err(registry.broken(format!("it lists more than {MAX_TAGS} tags")));
        }
        if !(goes_on && is_new) {
            return Ok(tags);
        }
    }
}

/// Searches a registry by the old way (`/v1/search`), the only one there is; most registries don't have it.
pub fn search(store: &Store, term: &str, limit: u32, auth: Option<&Auth>) -> Result<Vec<SearchResult>, Error> {
    #[derive(Deserialize)]
    struct Found {
        #[serde(default)]
        results: Vec<SearchResult>,
    }
    // As in a name: what stands before the first slash may be a registry.
    let (registry_name, words) = match term.split_once('/') {
        Some((host, words)) if host.contains(['.', ':']) || host == "localhost" => (host, words),
        _ => ("docker.io", term),
    };
    let reference: Reference = format!("{registry_name}/library/search").parse()?;
    let registry = Registry::new(store, &reference, auth).for_login();
    let root = if registry_name == "docker.io" { "https://index.docker.io" } else { registry.root() };
    let url = format!("{root}/v1/search?q={}&n={}", encode(words), limit.clamp(1, MAX_RESULTS));
    let ask = Ask { max_bytes: MAX_SEARCH_BYTES, ..Ask::default() };
    let response = match registry.retried(|| registry.send(&url, &ask)) {
        Err(Error::NotInRegistry { .. }) => {
            let message = "it has no search; ask it for /v2/_catalog, or look on its web page".to_owned();
            return Err(Error::Registry { registry: registry_name.into(), reference: term.into(), message });
        }
        other => other?,
    };
    let bytes = response.bytes().map_err(|source| registry.fetch(source))?;
    let found: Found = serde_json::from_slice(&bytes)
        .map_err(|error| registry.broken(format!("its answer to the search can't be read ({error})")))?;
    Ok(found.results.into_iter().take(limit.clamp(1, MAX_RESULTS) as usize).collect())
}
