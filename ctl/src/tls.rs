//! TLS with certificates on both sides.

use std::io::{ErrorKind, Read as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keel_spec::api::ErrorCode;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::error::{Failure, Result};

/// Longest wait for a part of the handshake: a forwarded port is open before the host behind it is up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest PEM file that is read.
const MAX_PEM_BYTES: u64 = 1 << 20;
/// Most certificates of one file.
const MAX_CERTIFICATES: usize = 64;

/// Speaks TLS over `stream` to the host named `host`, with what is in `folder`.
/// Reads fail after `read_timeout` from then on.
pub fn connect(
    stream: TcpStream,
    host: &str,
    folder: &Path,
    read_timeout: Option<Duration>,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let bad = |what: String| Failure::new(ErrorCode::BadRequest, what);
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&folder.join("ca.pem"))? {
        roots.add(certificate).map_err(|error| bad(format!("{}: {error}", folder.join("ca.pem").display())))?;
    }
    let key_path = folder.join("key.pem");
    let key = PrivateKeyDer::from_pem_slice(&read(&key_path)?)
        .map_err(|error| bad(format!("{} holds no usable private key: {error}", key_path.display())))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(format!("cannot set TLS up: {error}")))?
        .with_root_certificates(roots)
        .with_client_auth_cert(certificates(&folder.join("cert.pem"))?, key)
        .map_err(|error| bad(format!("cert.pem and key.pem in {} can't be used: {error}", folder.display())))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| bad(format!("host {host:?}: {error}")))?;
    let connection = ClientConnection::new(Arc::new(config), name)
        .map_err(|error| bad(format!("cannot set TLS up for {host}: {error}")))?;
    let failed = |error| Failure::unavailable(format!("connection to {host}: {error}"));
    stream.set_read_timeout(Some(HANDSHAKE_TIMEOUT)).map_err(failed)?;
    let mut stream = StreamOwned::new(connection, stream);
    // The handshake is done here, so that its failures say what they are.
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).map_err(|error| {
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) {
                return Failure::unavailable(format!(
                    "the API at {host} took the connection but hasn't answered for {} s: is the host starting?",
                    HANDSHAKE_TIMEOUT.as_secs()
                ));
            }
            Failure::unavailable(format!(
                "TLS with {host} failed: {error}; do the certificates in {} belong to this host, and does its \
                 certificate name {host} (api.names in its machine config)?",
                folder.display()
            ))
        })?;
    }
    stream.sock.set_read_timeout(read_timeout).map_err(failed)?;
    Ok(stream)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = read(path)?;
    let found: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).take(MAX_CERTIFICATES).collect();
    match found {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Failure::new(ErrorCode::BadRequest, format!("{} holds no certificate in PEM", path.display()))),
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_PEM_BYTES).read_to_end(&mut bytes))
        .map_err(|error| Failure::new(ErrorCode::BadRequest, format!("cannot read {}: {error}", path.display())))?;
    Ok(bytes)
}
