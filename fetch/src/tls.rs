//! Trust anchors, read when the first https request needs them: parsing a bundle of 140 costs boot time and memory.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Whom a client trusts.
#[derive(Debug)]
pub struct Trust {
    file: PathBuf,
    extra: Vec<CertificateDer<'static>>,
    config: Mutex<Option<Arc<ClientConfig>>>,
}

impl Trust {
    /// Anchors from a PEM bundle, read later, and from a PEM text, read now.
    pub fn new(file: PathBuf, extra_pem: Option<String>) -> Result<Self, String> {
        let extra = match extra_pem {
            None => Vec::new(),
            Some(pem) => {
                let certificates = certificates(pem.as_bytes()).map_err(|e| format!("further authorities: {e}"))?;
                if certificates.is_empty() {
                    return Err("the further authorities hold no PEM certificate".into());
                }
                certificates
            }
        };
        Ok(Self { file, extra, config: Mutex::new(None) })
    }

    /// The TLS configuration, made once. A failure isn't remembered: the file may be there next time.
    pub fn config(&self) -> Result<Arc<ClientConfig>, String> {
        let mut slot = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = &*slot {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.build()?);
        *slot = Some(Arc::clone(&config));
        Ok(config)
    }

    fn build(&self) -> Result<ClientConfig, String> {
        let file = self.file.display();
        let mut roots = RootCertStore::empty();
        match std::fs::read(&self.file) {
            Ok(pem) => {
                let bundle = certificates(&pem).map_err(|error| format!("trust anchors in {file}: {error}"))?;
                // A bundle may hold an anchor that webpki doesn't support; the others must still work.
                roots.add_parsable_certificates(bundle);
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !self.extra.is_empty() => {}
            Err(error) => return Err(format!("trust anchors in {file} can't be read: {error}")),
        }
        for certificate in &self.extra {
            roots.add(certificate.clone()).map_err(|error| format!("a further authority is unusable: {error}"))?;
        }
        if roots.is_empty() {
            return Err(format!("{file} holds no usable trust anchor"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS library: {error}"))?;
        Ok(builder.with_root_certificates(roots).with_no_client_auth())
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("not a PEM certificate ({error})"))
}
