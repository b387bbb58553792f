//! Keys and certificates of the workstation, made where they are absent, and a machine config that holds them.
//!
//! - `keys/`: Secure Boot (`db.key`, `db.crt`), RSA because firmware and sbsign want it; the update repository's keys
//!   are there too, see [`crate::publish`]
//! - `certs/`: two authorities, one that clients verify hosts with (`ca.pem`), one that hosts verify clients with
//!   (`client-ca.pem`): neither can stand in for the other. And the operator's certificate (`cert.pem`, `key.pem`),
//!   under the names that the `docker` client wants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use serde::Serialize;

use crate::files::{self, FileError, at};
use crate::uki::SigningKey;

/// Why keys or certificates can't be made.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A file or program failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A certificate can't be made.
    #[error("cannot make the certificate {}", .0.display())]
    Certificate(PathBuf, #[source] rcgen::Error),
    /// The machine config can't be written.
    #[error("cannot write the machine config")]
    Config(#[from] toml::ser::Error),
}

/// The Secure Boot key in a folder, whether it is there or not.
pub fn secure_boot_key(folder: &Path) -> SigningKey {
    SigningKey { key: folder.join("db.key"), certificate: folder.join("db.crt") }
}

/// Makes the Secure Boot key unless it is there.
pub fn ensure_secure_boot_key(folder: &Path) -> Result<SigningKey, CredentialsError> {
    let pair = secure_boot_key(folder);
    if pair.key.exists() && pair.certificate.exists() {
        return Ok(pair);
    }
    private_folder(folder)?;
    let mut command = Command::new("openssl");
    command.args(["req", "-new", "-x509", "-newkey", "rsa:2048", "-noenc", "-sha256", "-days", "3650"]);
    command.args(["-subj", "/CN=Keel Secure Boot signing key/", "-addext", "extendedKeyUsage=codeSigning"]);
    files::run(command.arg("-keyout").arg(&pair.key).arg("-out").arg(&pair.certificate))?;
    private(&pair.key)?;
    log::info!("made the Secure Boot key {}", pair.key.display());
    Ok(pair)
}

/// Makes the authorities and the operator's certificate unless they are there.
pub fn ensure_certificates(folder: &Path) -> Result<(), CredentialsError> {
    private_folder(folder)?;
    ensure_authority(folder, "ca", "Keel hosts")?;
    ensure_authority(folder, "client-ca", "Keel operators")?;
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    if cert.exists() && key.exists() {
        return Ok(());
    }
    let (ca, ca_key) = (folder.join("client-ca.pem"), folder.join("client-ca-key.pem"));
    let fault = |error| CredentialsError::Certificate(cert.clone(), error);
    let issuer_key = KeyPair::from_pem(&text(&ca_key)?).map_err(fault)?;
    let issuer = Issuer::from_ca_cert_pem(&text(&ca)?, issuer_key).map_err(fault)?;
    let mut params = params("operator");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let pair = KeyPair::generate().map_err(fault)?;
    let certificate = params.signed_by(&pair, &issuer).map_err(fault)?;
    files::write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
    files::write(&cert, certificate.pem().as_bytes(), 0o600)?;
    log::info!("made the operator's certificate {}", cert.display());
    Ok(())
}

fn ensure_authority(folder: &Path, stem: &str, name: &str) -> Result<(), CredentialsError> {
    let (cert, key) = (folder.join(format!("{stem}.pem")), folder.join(format!("{stem}-key.pem")));
    if cert.exists() && key.exists() {
        return Ok(());
    }
    let fault = |error| CredentialsError::Certificate(cert.clone(), error);
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let pair = KeyPair::generate().map_err(fault)?;
    let certificate = params.self_signed(&pair).map_err(fault)?;
    files::write(&key, pair.serialize_pem().as_bytes(), 0o600)?;
    files::write(&cert, certificate.pem().as_bytes(), 0o600)?;
    log::info!("made the authority {}", cert.display());
    Ok(())
}

/// Valid from a date that no clock is before, so that a host with a wrong clock can still be reached.
fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
    params
}

fn text(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(at("read", path))
}

fn private_folder(folder: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt as _;
    files::create_folder(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).map_err(at("set the mode of", folder))
}

fn private(path: &Path) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(at("set the mode of", path))
}

/// What a generated machine config says beside the certificates.
#[derive(Debug)]
pub struct ConfigOrder<'a> {
    /// Folder of the certificates.
    pub certificates: &'a Path,
    /// Host name.
    pub hostname: &'a str,
    /// Names and addresses that the host is reached by; the first is the one its console shows.
    pub names: Vec<String>,
    /// Base address of the update repository.
    pub update_url: Option<String>,
    /// TCP port of the API.
    pub api_port: u16,
    /// Registries without TLS.
    pub insecure_registries: Vec<String>,
}

#[derive(Serialize)]
struct Config<'a> {
    hostname: &'a str,
    api: Api,
    #[serde(skip_serializing_if = "Option::is_none")]
    update: Option<Update>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<Registry>,
}

#[derive(Serialize)]
struct Api {
    listen: String,
    names: Vec<String>,
    client_ca_pem: String,
    issuer_cert_pem: String,
    issuer_key_pem: String,
}

#[derive(Serialize)]
struct Update {
    url: String,
}

#[derive(Serialize)]
struct Registry {
    insecure: Vec<String>,
}

/// Writes a machine config under which a host issues its own certificate and lets the operator in.
pub fn write_config(order: &ConfigOrder, out: &Path) -> Result<(), CredentialsError> {
    let pem = |name: &str| text(&order.certificates.join(name));
    let insecure = order.insecure_registries.clone();
    let config = Config {
        hostname: order.hostname,
        api: Api {
            listen: format!("0.0.0.0:{}", order.api_port),
            names: order.names.clone(),
            client_ca_pem: pem("client-ca.pem")?,
            issuer_cert_pem: pem("ca.pem")?,
            issuer_key_pem: pem("ca-key.pem")?,
        },
        update: order.update_url.clone().map(|url| Update { url }),
        registry: (!insecure.is_empty()).then_some(Registry { insecure }),
    };
    Ok(files::write(out, toml::to_string_pretty(&config)?.as_bytes(), 0o600)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn the_operators_certificate_is_issued_by_the_clients_authority_alone() {
        let folder = tempfile::tempdir().unwrap();
        ensure_certificates(folder.path()).unwrap();
        let verify = |ca: &str| {
            let mut command = Command::new("openssl");
            command.args(["verify", "-purpose", "sslclient", "-CAfile"]);
            files::run(command.arg(folder.path().join(ca)).arg(folder.path().join("cert.pem")))
        };
        verify("client-ca.pem").unwrap();
        assert!(verify("ca.pem").is_err());
        let mode = fs::metadata(folder.path().join("key.pem")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_there_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        ensure_certificates(folder.path()).unwrap();
        let before = fs::read(folder.path().join("ca.pem")).unwrap();
        ensure_certificates(folder.path()).unwrap();
        assert_eq!(fs::read(folder.path().join("ca.pem")).unwrap(), before);
    }
}
