//! TLS for the API: both sides show certificates, and the host's is replaced while connections live.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use keel_spec::config::Settings;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{ClientHello, ResolvesServerCert, ServerConfig, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use time::OffsetDateTime;

use crate::addresses::{self, Changes};
use crate::certificate::{self, Authority, Issued, Names};

/// How often the certificate is looked at, for the passing of time; new addresses are noticed at once.
const CHECK_EVERY: Duration = Duration::from_secs(60);
/// Most authorities that client certificates may come from.
const MAX_AUTHORITIES: usize = 32;

/// Why TLS can't be offered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// See [`certificate::Error`].
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
    /// The authority for clients is unusable.
    #[error("the machine config's client_ca_pem can't be read as PEM certificates")]
    ClientAuthority(#[source] rustls::pki_types::pem::Error),
    /// The authority for clients is no authority.
    #[error("the machine config's client_ca_pem holds a certificate that can't be trusted as an authority")]
    NoAuthority(#[source] rustls::Error),
    /// There is no certificate in it.
    #[error("the machine config's client_ca_pem can't check clients")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// rustls refuses the whole.
    #[error("TLS can't be set up")]
    Setup(#[source] rustls::Error),
}

/// The certificate in force, which new handshakes take.
#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// TLS, ready to be offered, and what is needed to keep its certificate fresh.
pub struct Tls {
    /// For the acceptor.
    pub config: Arc<ServerConfig>,
    renewal: Renewal,
}

/// Keeps the certificate fresh.
pub struct Renewal {
    authority: Authority,
    current: Arc<Current>,
    issued: Issued,
    hostname: String,
    configured: Vec<String>,
}

impl Tls {
    /// Sets TLS up; `None`: the machine config doesn't bring all three PEM texts.
    pub fn open(settings: &Settings, key_path: &Path) -> Result<Option<Self>, Error> {
        let api = &settings.api;
        let (Some(clients), Some(certificate), Some(key)) =
            (&api.client_ca_pem, &api.issuer_cert_pem, &api.issuer_key_pem)
        else {
            return Ok(None);
        };
        let authority = Authority::open(certificate, key, key_path)?;
        let names = names(&settings.hostname, &api.names);
        let (certified, issued) = authority.issue(names, OffsetDateTime::now_utc())?;
        let current = Arc::new(Current(RwLock::new(Arc::new(certified))));
        let config = Arc::new(server_config(clients, Arc::clone(&current))?);
        let renewal =
            Renewal { authority, current, issued, hostname: settings.hostname.clone(), configured: api.names.clone() };
        Ok(Some(Self { config, renewal }))
    }

    /// The configuration, and the part that [`Renewal::run`]s.
    pub fn into_parts(self) -> (Arc<ServerConfig>, Renewal) {
        (self.config, self.renewal)
    }
}

fn names(hostname: &str, configured: &[String]) -> Names {
    let addresses = addresses::current().unwrap_or_else(|error| {
        log::warn!("cannot list the host's addresses for its certificate: {error}");
        Vec::new()
    });
    let addresses = addresses.into_iter().filter(|entry| !addresses::is_internal(&entry.interface));
    Names::collect(hostname, configured, addresses.map(|entry| entry.address))
}

fn server_config(client_authorities: &str, current: Arc<Current>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(client_authorities.as_bytes()).take(MAX_AUTHORITIES) {
        roots.add(certificate.map_err(Error::ClientAuthority)?).map_err(Error::NoAuthority)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(Error::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Setup)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(current);
    // Hijacked streams are HTTP/1.1's.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

impl Renewal {
    /// Looks after the certificate for as long as the daemon runs.
    pub async fn run(mut self) {
        let mut changes = Changes::open()
            .inspect_err(|error| log::warn!("cannot listen for address changes: {error}; looking every minute"))
            .ok();
        loop {
            let change = async {
                match &mut changes {
                    Some(changes) => changes.next().await,
                    None => std::future::pending().await,
                }
            };
            if let Ok(Err(error)) = tokio::time::timeout(CHECK_EVERY, change).await {
                log::warn!("cannot listen for address changes any more: {error}; looking every minute");
                changes = None;
            }
            self.check(OffsetDateTime::now_utc());
        }
    }

    fn check(&mut self, now: OffsetDateTime) {
        let names = names(&self.hostname, &self.configured);
        if !self.issued.is_stale(&names, now) {
            return;
        }
        match self.authority.issue(names, now) {
            Ok((certified, issued)) => {
                *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
                self.issued = issued;
                log::info!("issued a new certificate for the API: its names, addresses or dates had changed");
            }
            Err(error) => log::error!("cannot renew the API's certificate: {}", keel_link::logger::chain(&error)),
        }
    }
}
