//! One registry: requests, credentials, errors.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use keel_fetch::{Request, Response, auth};
use serde::Deserialize;

use super::challenge::{Challenge, encode};
use crate::digest::Digest;
use crate::error::Error;
use crate::model;
use crate::reference::{DEFAULT_REGISTRY, Reference};
use crate::store::{Auth, Store};

/// Where Docker's registry really is.
const DOCKER_HOST: &str = "registry-1.docker.io";
/// Tries of one request, with waits of 1 and 2 seconds between them.
pub const MAX_TRIES: u32 = 3;
/// Longest answer of a token service.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// One repository of a registry, with the credentials for it.
pub struct Registry<'a> {
    store: &'a Store,
    reference: &'a Reference,
    auth: Option<&'a Auth>,
    base: String,
    plain: bool,
    /// Value of the `Authorization` header, once a challenge has been met.
    authorization: Mutex<Option<String>>,
}

impl<'a> Registry<'a> {
    /// The registry of an image. Nothing is sent yet.
    pub fn new(store: &'a Store, reference: &'a Reference, auth: Option<&'a Auth>) -> Self {
        let registry = reference.registry();
        let host = if registry == DEFAULT_REGISTRY { DOCKER_HOST } else { registry };
        let plain = store.options.insecure_registries.iter().any(|name| name == registry);
        let base = format!("{}://{host}/v2/{}", if plain { "http" } else { "https" }, reference.repository());
        let authorization = match auth {
            Some(Auth::Bearer(token)) => Some(auth::bearer(token)),
            _ => None,
        };
        Self { store, reference, auth, base, plain, authorization: Mutex::new(authorization) }
    }

    /// The manifest by tag or digest, with its digest; held against `digest` if given.
    pub fn manifest(&self, name: &str, digest: Option<&Digest>) -> Result<(Digest, Vec<u8>), Error> {
        let path = format!("manifests/{name}");
        let bytes = self.retried(|| {
            let response = self.get(&path, Some(model::ACCEPT), None, model::MAX_MANIFEST_BYTES)?;
            response.bytes().map_err(|source| self.fetch(source))
        })?;
        let got = Digest::of(&bytes);
        match digest {
            Some(expected) if *expected != got => {
                let what = format!("manifest of {} from {}", self.reference, self.reference.registry());
                Err(Error::Digest { what, expected: *expected, got })
            }
            _ => Ok((got, bytes)),
        }
    }

    /// A small blob, in memory, checked.
    pub fn small_blob(&self, digest: &Digest, max_bytes: u64) -> Result<Vec<u8>, Error> {
        let bytes = self.retried(|| {
            let response = self.blob(digest, None, max_bytes)?;
            response.bytes().map_err(|source| self.fetch(source))
        })?;
        let got = Digest::of(&bytes);
        if got == *digest {
            return Ok(bytes);
        }
        let what = format!("blob {digest} of {} from {}", self.reference, self.reference.registry());
        Err(Error::Digest { what, expected: *digest, got })
    }

    /// Begins to read a blob.
    pub fn blob(&self, digest: &Digest, range: Option<Range<u64>>, max_bytes: u64) -> Result<Response, Error> {
        self.get(&format!("blobs/{digest}"), None, range, max_bytes)
    }

    /// Does something up to [`MAX_TRIES`] times, as long as the network is to blame.
    pub fn retried<T>(&self, mut action: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut tries = 1;
        loop {
            match action() {
                Err(Error::Fetch { source, .. }) if source.is_transient() && tries < MAX_TRIES => {
                    log::info!("pulling {}: {source}; trying again", self.reference);
                    thread::sleep(backoff(tries));
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    /// An error of the network on the way to this registry.
    pub fn fetch(&self, source: keel_fetch::Error) -> Error {
        Error::Fetch { reference: self.reference.to_string(), source }
    }

    /// An error in what this registry says.
    pub fn broken(&self, message: String) -> Error {
        let (registry, reference) = (self.reference.registry().to_owned(), self.reference.to_string());
        Error::Registry { registry, reference, message }
    }

    fn get(&self, path: &str, accept: Option<&str>, range: Option<Range<u64>>, max: u64) -> Result<Response, Error> {
        let url = format!("{}/{path}", self.base);
        // Twice: without the credentials that a first answer asks for, and with them.
        for may_authenticate in [true, false] {
            let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let headers: Vec<_> = accept
                .map(|accept| ("Accept", accept))
                .into_iter()
                .chain(authorization.as_deref().map(|value| ("Authorization", value)))
                .collect();
            let request = Request { range: range.clone(), ..Request::new(&url, max).headers(&headers) };
            let response = self.store.client.get(&request).map_err(|source| self.fetch(source))?;
            match response.status {
                401 if may_authenticate => {
                    let value = self.authenticate(&response)?;
                    *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                }
                200..300 => return Ok(response),
                _ => return Err(self.refused(response)),
            }
        }
        Err(self.broken("it asks for credentials again and again".into()))
    }

    /// The header that answers a challenge.
    fn authenticate(&self, response: &Response) -> Result<String, Error> {
        let header = response.header("www-authenticate").unwrap_or_default();
        let basic = match self.auth {
            Some(Auth::Basic { user, password }) => Some(auth::basic(user, password)),
            _ => None,
        };
        match Challenge::parse(header) {
            Some(Challenge::Basic) => basic.ok_or_else(|| self.denied("no basic auth credentials".into())),
            Some(Challenge::Bearer { realm, service, scope }) => {
                let plain = self.plain && realm.starts_with("http://");
                if !plain && !realm.starts_with("https://") {
                    return Err(self.broken(format!("its token service {realm:?} isn't reached over https")));
                }
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository()));
                let mut url = format!("{realm}{}scope={}", if realm.contains('?') { '&' } else { '?' }, encode(&scope));
                if let Some(service) = service {
                    url.push_str(&format!("&service={}", encode(&service)));
                }
                self.token(&url, basic.as_deref())
            }
            None => Err(self.denied(format!("it asks for credentials in a way that isn't supported ({header:?})"))),
        }
    }

    fn token(&self, url: &str, basic: Option<&str>) -> Result<String, Error> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let headers: Vec<_> = basic.map(|value| ("Authorization", value)).into_iter().collect();
        let request = Request::new(url, MAX_TOKEN_BYTES).headers(&headers);
        let response = self.store.client.get(&request).map_err(|source| self.fetch(source))?;
        if matches!(response.status, 400 | 401 | 403) {
            return Err(self.denied(format!("its token service answered {}", response.status)));
        }
        let bytes = response.success().and_then(Response::bytes).map_err(|source| self.fetch(source))?;
        let token: Token = serde_json::from_slice(&bytes)
            .map_err(|error| self.broken(format!("its token service sent no token ({error})")))?;
        let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
        token.map(|token| auth::bearer(&token)).ok_or_else(|| self.broken("its token service sent no token".into()))
    }

    /// What a status other than success means.
    fn refused(&self, response: Response) -> Error {
        #[derive(Deserialize)]
        struct Errors {
            errors: Vec<Detail>,
        }
        #[derive(Deserialize)]
        struct Detail {
            #[serde(default)]
            message: String,
        }
        let status = response.status;
        let source = match response.success() {
            Err(source) => source,
            Ok(_) => return self.broken(format!("unexpected status {status}")),
        };
        let body = match &source {
            keel_fetch::Error::Status { body, .. } => body.as_str(),
            _ => "",
        };
        let message = serde_json::from_str::<Errors>(body)
            .ok()
            .and_then(|errors| Some(errors.errors.into_iter().next()?.message));
        let (registry, reference) = (self.reference.registry().to_owned(), self.reference.to_string());
        match status {
            401 | 403 => self.denied(message.unwrap_or_else(|| format!("it answered {status}"))),
            404 => {
                let message = message.unwrap_or_else(|| "manifest unknown".into());
                Error::NotInRegistry { registry, reference, message }
            }
            _ => self.fetch(source),
        }
    }

    fn denied(&self, message: String) -> Error {
        let (registry, reference) = (self.reference.registry().to_owned(), self.reference.to_string());
        Error::Denied { registry, reference, message }
    }
}

/// How long to wait after a try: 1 s, 2 s, 4 s.
pub fn backoff(tries: u32) -> Duration {
    Duration::from_secs(1 << (tries.saturating_sub(1)).min(2))
}
