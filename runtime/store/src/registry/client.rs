//! One repository of a registry, or of a mirror of it: requests, with credentials where they are asked for.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use keel_fetch::{Method, Request, Response, auth, is_same_origin};

use super::credentials::{self, Asked};
use crate::digest::Digest;
use crate::error::Error;
use crate::model;
use crate::reference::{DEFAULT_REGISTRY, Reference};
use crate::remote::Auth;
use crate::store::Store;

/// Where Docker's registry really is.
const DOCKER_HOST: &str = "registry-1.docker.io";
/// Tries of one request, with growing waits between them.
pub const MAX_TRIES: u32 = 4;
/// Longest wait between two tries, whatever a server asks for.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// One repository, with the credentials for it.
pub struct Registry<'a> {
    pub(super) store: &'a Store,
    pub(super) reference: &'a Reference,
    auth: Option<&'a Auth>,
    /// `https://host[:port]`
    root: String,
    /// What access is asked for, such as `repository:a/b:pull`.
    scopes: Vec<String>,
    /// Value of the `Authorization` header, once a challenge has been met.
    authorization: Mutex<Option<String>>,
}

/// One request to a registry.
#[derive(Clone, Default)]
pub struct Ask<'a> {
    /// Method.
    pub method: Method,
    /// Headers beside `Authorization`.
    pub headers: &'a [(&'a str, &'a str)],
    /// Bytes wanted.
    pub range: Option<Range<u64>>,
    /// Most bytes of the answer.
    pub max_bytes: u64,
    /// Body.
    pub body: &'a [u8],
}

impl<'a> Registry<'a> {
    /// The registry of an image. Nothing is sent yet.
    pub fn new(store: &'a Store, reference: &'a Reference, auth: Option<&'a Auth>) -> Self {
        let registry = reference.registry();
        let host = if registry == DEFAULT_REGISTRY { DOCKER_HOST } else { registry };
        let is_plain = store.options.insecure_registries.iter().any(|name| name == registry);
        let root = format!("{}://{host}", if is_plain { "http" } else { "https" });
        Self::at(store, reference, auth, root)
    }

    /// The mirrors of an image's registry, in order, and then the registry itself. Mirrors get no credentials.
    pub fn with_mirrors(store: &'a Store, reference: &'a Reference, auth: Option<&'a Auth>) -> Vec<Self> {
        let mirrors = store.options.mirrors.iter().filter(|(of, _)| of == reference.registry());
        let mirrors = mirrors.map(|(_, url)| Self::at(store, reference, None, url.clone()));
        mirrors.chain([Self::new(store, reference, auth)]).collect()
    }

    fn at(store: &'a Store, reference: &'a Reference, auth: Option<&'a Auth>, root: String) -> Self {
        let authorization = match auth {
            Some(Auth::Bearer(token)) => Some(auth::bearer(token)),
            _ => None,
        };
        let scopes = vec![format!("repository:{}:pull", reference.repository())];
        Self { store, reference, auth, root, scopes, authorization: Mutex::new(authorization) }
    }

    /// The same with leave to push, and to mount blobs of these repositories.
    pub fn for_push(mut self, others: impl Iterator<Item = String>) -> Self {
        self.scopes = vec![format!("repository:{}:pull,push", self.reference.repository())];
        self.scopes.extend(others.map(|other| format!("repository:{other}:pull")));
        self
    }

    /// The same without asking for access to any repository: for a login.
    pub fn for_login(mut self) -> Self {
        self.scopes.clear();
        self
    }

    /// Address of the registry, `https://host[:port]`.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// Address of something in the repository, such as `blobs/sha256:…`.
    pub fn url(&self, path: &str) -> String {
        format!("{}/v2/{}/{path}", self.root, self.reference.repository())
    }

    /// The manifest by tag or digest, with its digest and media type; held against `digest` if given.
    pub fn manifest(&self, name: &str, digest: Option<&Digest>) -> Result<(Digest, Vec<u8>, String), Error> {
        let ask = Ask { headers: &[("Accept", model::ACCEPT)], max_bytes: model::MAX_MANIFEST_BYTES, ..Ask::default() };
        let (bytes, media_type) = self.retried(|| {
            let response = self.send(&self.url(&format!("manifests/{name}")), &ask)?;
            let media_type = response.header("content-type").unwrap_or_default().to_owned();
            Ok((response.bytes().map_err(|source| self.fetch(source))?, media_type))
        })?;
        let got = Digest::of(&bytes);
        match digest {
            Some(expected) if *expected != got => {
                let what = format!("manifest of {} from {}", self.reference, self.host());
                Err(Error::Digest { what, expected: *expected, got })
            }
            _ => Ok((got, bytes, media_type)),
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
        let what = format!("blob {digest} of {} from {}", self.reference, self.host());
        Err(Error::Digest { what, expected: *digest, got })
    }

    /// Begins to read a blob.
    pub fn blob(&self, digest: &Digest, range: Option<Range<u64>>, max_bytes: u64) -> Result<Response, Error> {
        self.send(&self.url(&format!("blobs/{digest}")), &Ask { range, max_bytes, ..Ask::default() })
    }

    /// Does something up to [`MAX_TRIES`] times, as long as the network or an overloaded registry is to blame.
    pub fn retried<T>(&self, mut action: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut tries = 1;
        loop {
            match action() {
                Err(Error::Fetch { source, .. }) if source.is_transient() && tries < MAX_TRIES => {
                    log::info!("{}: {source}; trying again", self.reference);
                    thread::sleep(wait(tries, source.retry_after()));
                    tries += 1;
                }
                other => return other,
            }
        }
    }

    /// Sends a request; any status but 2xx is an error.
    pub fn send(&self, url: &str, ask: &Ask<'_>) -> Result<Response, Error> {
        let is_ours = is_same_origin(url, &self.root);
        // Twice: without the credentials that a first answer asks for, or with those that have expired; and with new.
        for may_authenticate in [true, false] {
            let authorization = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let mut headers = ask.headers.to_vec();
            // An upload may be sent on to another host, which isn't to see them.
            headers.extend(authorization.as_deref().filter(|_| is_ours).map(|value| ("Authorization", value)));
            let request = Request {
                range: ask.range.clone(),
                ..Request::new(url, ask.max_bytes).headers(&headers).body(ask.body)
            };
            let response = self.store.client.request(ask.method, &request).map_err(|source| self.fetch(source))?;
            match response.status {
                401 if may_authenticate && is_ours => {
                    let value = credentials::answer(self, &self.asked(), &response)?;
                    *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
                }
                200..300 => return Ok(response),
                _ => return Err(self.refused(response)),
            }
        }
        Err(self.broken("it asks for credentials again and again".into()))
    }

    fn asked(&self) -> Asked<'_> {
        Asked { auth: self.auth, scopes: &self.scopes, is_plain: self.root.starts_with("http://") }
    }

    /// The registry's name, or the mirror's address.
    pub fn host(&self) -> &str {
        self.root.split_once("://").map_or(&self.root, |(_, host)| host)
    }

    /// An error of the network on the way to this registry.
    pub fn fetch(&self, source: keel_fetch::Error) -> Error {
        Error::Fetch { reference: self.reference.to_string(), source }
    }

    /// An error in what this registry says.
    pub fn broken(&self, message: String) -> Error {
        Error::Registry { registry: self.host().to_owned(), reference: self.reference.to_string(), message }
    }

    /// An error in what we are, to this registry.
    pub fn denied(&self, message: String) -> Error {
        Error::Denied { registry: self.host().to_owned(), reference: self.reference.to_string(), message }
    }

    /// What a status other than success means.
    fn refused(&self, response: Response) -> Error {
        let status = response.status;
        let source = match response.success() {
            Err(source) => source,
            Ok(_) => return self.broken(format!("unexpected status {status}")),
        };
        let body = match &source {
            keel_fetch::Error::Status { body, .. } => body.as_str(),
            _ => "",
        };
        let message = credentials::message(body);
        match status {
            401 | 403 => self.denied(message.unwrap_or_else(|| format!("it answered {status}"))),
            404 => Error::NotInRegistry {
                registry: self.host().to_owned(),
                reference: self.reference.to_string(),
                message: message.unwrap_or_else(|| "manifest unknown".into()),
            },
            _ => self.fetch(source),
        }
    }
}

/// How long to wait after a try: 1 s, 2 s, 4 s, 8 s and a little more, so that many hosts don't come back at once; or
/// what the server asks for.
pub fn wait(tries: u32, asked: Option<Duration>) -> Duration {
    let own = Duration::from_millis(1000 << tries.saturating_sub(1).min(3));
    let spread = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    asked.unwrap_or(own + own.mul_f64(f64::from(spread % 1000) / 4000.0)).min(MAX_WAIT)
}
