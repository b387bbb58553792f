//! Bollard's way to a machine: mutual TLS, with the certificates that the `docker` client takes. Its own would bring
//! another library for TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bollard::errors::Error;
use bollard::{BollardRequest, Docker};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderValue};
use hyper::{Response, Uri};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Longest wait for one answer, in seconds.
const ANSWER_LIMIT_S: u64 = 120;

/// The library, with a connection of its own for each call. `certs` holds `ca.pem`, `cert.pem` and `key.pem`.
pub fn connect(address: SocketAddr, certs: &Path) -> Result<Docker> {
    let connector = TlsConnector::from(Arc::new(config(certs)?));
    let transport = move |request: BollardRequest| send(connector.clone(), address, request);
    Docker::connect_with_custom_transport(
        transport,
        Some("http://localhost"),
        ANSWER_LIMIT_S,
        bollard::API_DEFAULT_VERSION,
    )
    .context("set Bollard up")
}

async fn send(
    connector: TlsConnector,
    address: SocketAddr,
    mut request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    let stream = connector.connect(ServerName::from(address.ip()), TcpStream::connect(address).await?).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the last of both sides; a terminal or an exec goes on as a stream of bytes.
    tokio::spawn(connection.with_upgrades());
    // A server is asked by path alone (RFC 9112, section 3.2.1).
    if let Some(path) = request.uri().path_and_query().cloned() {
        *request.uri_mut() = Uri::from(path);
    }
    request.headers_mut().insert(HOST, HeaderValue::from_static("localhost"));
    Ok(sender.send_request(request).await?)
}

fn config(certs: &Path) -> Result<ClientConfig> {
    let file = |name: &str| certs.join(name);
    let read = |name: &str| CertificateDer::from_pem_file(file(name)).with_context(|| format!("read {name}"));
    let mut roots = RootCertStore::empty();
    roots.add(read("ca.pem")?)?;
    let key = PrivateKeyDer::from_pem_file(file("key.pem")).context("read key.pem")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_client_auth_cert(vec![read("cert.pem")?], key)?)
}
