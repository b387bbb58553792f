//! What the store does with registries, and what the machine config allows of it.

use keel_fetch::{Request, Response};

use crate::create::Import;
use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::image::Image;
use crate::progress::{Progress, Status};
use crate::reference::Reference;
use crate::registry::look::{Distribution, SearchResult};
use crate::registry::{credentials, look, pull, push, signature};
use crate::store::Store;

/// Most bytes that an import fetches.
const MAX_IMPORT_BYTES: u64 = 64 << 30;

/// How an image is pulled.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pull<'a> {
    /// Credentials.
    pub auth: Option<&'a Auth>,
    /// `linux/amd64`, also with a variant; `None`: what runs here.
    pub platform: Option<&'a str>,
}

/// Credentials for a registry.
#[derive(Clone)]
pub enum Auth {
    /// User and password, for the registry itself or its token service.
    Basic {
        /// User.
        user: String,
        /// Password.
        password: String,
    },
    /// A token for the registry (Docker's `registrytoken`).
    Bearer(String),
    /// A token for the registry's token service (Docker's `identitytoken`).
    Identity(String),
}

impl std::fmt::Debug for Auth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Auth(..)")
    }
}

impl Store {
    /// Pulls an image. The callback is called from this thread only.
    pub fn pull(
        &self,
        reference: &Reference,
        pull: &Pull<'_>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageId, Error> {
        self.allow(reference.digest().is_some(), || format!("pulling {reference}"))?;
        pull::pull(self, reference, pull, progress)
    }

    /// Pushes the image of this name to the registry in it. The callback is called from this thread only.
    pub fn push(
        &self,
        reference: &Reference,
        auth: Option<&Auth>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Digest, Error> {
        push::push(self, reference, auth, progress)
    }

    /// Looks up what a registry has under a name.
    pub fn distribution(&self, reference: &Reference, auth: Option<&Auth>) -> Result<Distribution, Error> {
        look::distribution(self, reference, auth)
    }

    /// Imports an archive from an address, by way of the machine config's proxies.
    pub fn import_from(
        &self,
        address: &str,
        import: &Import,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<ImageId, Error> {
        let failed = |source| Error::Fetch { reference: address.to_owned(), source };
        let response = self.http().get(&Request::new(address, MAX_IMPORT_BYTES)).and_then(Response::success);
        let mut response = response.map_err(failed)?;
        progress(Progress { id: None, status: Status::DownloadingFrom(address.to_owned()) });
        self.import(&mut response.body, import)
    }

    /// The names of all images that a registry has under a name, by tag.
    pub fn tagged(&self, name: &Reference, auth: Option<&Auth>) -> Result<Vec<Reference>, Error> {
        let tags = look::tags(self, name, auth)?;
        tags.iter().map(|tag| Ok(name.with_tag(tag)?)).collect()
    }

    /// Searches a registry, Docker's unless the term begins with another.
    pub fn search(&self, term: &str, limit: u32, auth: Option<&Auth>) -> Result<Vec<SearchResult>, Error> {
        look::search(self, term, limit, auth)
    }

    /// Tries credentials on a registry.
    pub fn login(&self, server: &str, auth: &Auth) -> Result<(), Error> {
        credentials::login(self, server, auth)
    }

    /// An image that a container is to be made of. Unlike [`Store::image`] this holds the policy of the machine config.
    pub fn image_to_run(&self, name_or_id: &str) -> Result<Image, Error> {
        let by_digest = name_or_id.contains("@sha256:")
            || Digest::from_hex(name_or_id.strip_prefix("sha256:").unwrap_or(name_or_id)).is_ok();
        self.allow(by_digest, || format!("running {name_or_id}"))?;
        let image = self.image(name_or_id)?;
        if !self.options.signature_keys.is_empty() {
            signature::check(self, &image.id)?;
        }
        Ok(image)
    }

    fn allow(&self, by_digest: bool, what: impl FnOnce() -> String) -> Result<(), Error> {
        if by_digest || !self.options.require_digest {
            return Ok(());
        }
        Err(Error::Policy { what: what(), reason: "images have to be named by digest (registry.require_digest)" })
    }
}
