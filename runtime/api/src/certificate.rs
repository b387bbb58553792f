//! The host's own key and certificate. The key is made here and never leaves; the certificate is issued under the
//! authority that the machine config brings along, and names everything that the host is reached by.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

/// How long a certificate is good for: no client of today takes much more than 398 days.
const VALIDITY: Duration = Duration::days(397);
/// A certificate with less than this left is replaced.
const RENEW_BEFORE_END: Duration = Duration::days(30);
/// How far a certificate reaches back, for clients whose clocks are slow.
const BACKDATED: Duration = Duration::days(1);
/// Most names in a certificate; hosts with more interfaces than that exist, handshakes that long shouldn't.
const MAX_NAMES: usize = 100;
/// Longest key file that is read.
const MAX_KEY_BYTES: u64 = 16 << 10;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key's file can't be read or written.
    #[error("cannot {doing} the API's key {path}", path = path.display())]
    KeyFile {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key could not be made.
    #[error("cannot make a key for the API")]
    MakeKey(#[source] rcgen::Error),
    /// The authority in the machine config is unusable.
    #[error("the machine config's {0} can't be used: want PEM of an authority's certificate and its PKCS #8 key")]
    Issuer(&'static str, #[source] rcgen::Error),
    /// The certificate could not be issued.
    #[error("cannot issue the API's certificate")]
    Issue(#[source] rcgen::Error),
    /// rustls doesn't take what was issued.
    #[error("the API's key and certificate can't be used for TLS")]
    Unusable(#[source] rustls::Error),
    /// The authority's certificate can't be sent along.
    #[error("the machine config's issuer_cert_pem holds no certificate")]
    Chain(#[source] rustls::pki_types::pem::Error),
}

/// What a certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    dns: BTreeSet<String>,
    addresses: BTreeSet<IpAddr>,
}

impl Names {
    /// The host's name, the loopback, what the machine config adds, and the host's own addresses. What is no valid
    /// name is left out, so that one slip doesn't cost the whole API.
    pub fn collect(hostname: &str, configured: &[String], addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut names = Self { dns: BTreeSet::new(), addresses: BTreeSet::new() };
        for name in ["localhost", "127.0.0.1", "::1", hostname].into_iter().chain(configured.iter().map(String::as_str))
        {
            match name.parse::<IpAddr>() {
                Ok(address) => _ = names.addresses.insert(address),
                Err(_) if is_dns_name(name) => _ = names.dns.insert(name.to_ascii_lowercase()),
                Err(_) => log::warn!("the API's name {name:?} is no DNS name and no address: it is left out"),
            }
        }
        for address in addresses {
            if names.addresses.len() + names.dns.len() < MAX_NAMES {
                names.addresses.insert(address);
            }
        }
        names
    }

    fn alternatives(&self) -> Result<Vec<SanType>, rcgen::Error> {
        let names = self.dns.iter().map(|name| Ok(SanType::DnsName(name.as_str().try_into()?)));
        names.chain(self.addresses.iter().map(|address| Ok(SanType::IpAddress(*address)))).collect()
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.strip_prefix("*.").unwrap_or(name).split('.').all(label)
}

/// When a certificate was issued, for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    names: Names,
    at: OffsetDateTime,
}

impl Issued {
    /// Whether another one is due: the names changed, the end is near, or the clock was put back before its start.
    pub fn is_stale(&self, names: &Names, now: OffsetDateTime) -> bool {
        self.names != *names || now > self.at + VALIDITY - RENEW_BEFORE_END || now < self.at - BACKDATED
    }
}

/// Issues certificates for this host's one key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    issuer_der: CertificateDer<'static>,
    host_key: KeyPair,
}

impl Authority {
    /// Reads the authority from the machine config, and the host's key from `key_path`; makes that if it isn't there.
    pub fn open(issuer_cert_pem: &str, issuer_key_pem: &str, key_path: &Path) -> Result<Self, Error> {
        let issuer_key = KeyPair::from_pem(issuer_key_pem).map_err(|error| Error::Issuer("issuer_key_pem", error))?;
        let issuer = Issuer::from_ca_cert_pem(issuer_cert_pem, issuer_key)
            .map_err(|error| Error::Issuer("issuer_cert_pem", error))?;
        let issuer_der = CertificateDer::from_pem_slice(issuer_cert_pem.as_bytes()).map_err(Error::Chain)?;
        Ok(Self { issuer, issuer_der, host_key: host_key(key_path)? })
    }

    /// Issues a certificate that starts a day before `now`.
    pub fn issue(&self, names: Names, now: OffsetDateTime) -> Result<(CertifiedKey, Issued), Error> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.alternatives().map_err(Error::Issue)?;
        params.distinguished_name = DistinguishedName::new();
        let common_name = names.dns.iter().find(|name| *name != "localhost").map_or("keel", String::as_str);
        // X.520 ends common names at 64 characters; clients look at the alternative names anyway.
        params.distinguished_name.push(DnType::CommonName, common_name.get(..64).unwrap_or(common_name));
        // RFC 5280, section 4.2.1: "not an authority" said aloud, and both key identifiers, as Go's verifier likes it.
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.not_before = now - BACKDATED;
        params.not_after = now + VALIDITY;
        let certificate = params.signed_by(&self.host_key, &self.issuer).map_err(Error::Issue)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.host_key.serialize_der()));
        let key = rustls::crypto::ring::sign::any_supported_type(&key).map_err(Error::Unusable)?;
        let chain = vec![certificate.der().clone(), self.issuer_der.clone()];
        Ok((CertifiedKey::new(chain, key), Issued { names, at: now }))
    }
}

fn host_key(path: &Path) -> Result<KeyPair, Error> {
    let fail = |doing, source| Error::KeyFile { doing, path: path.to_owned(), source };
    match read_capped(path) {
        Ok(pem) => match KeyPair::from_pem(&pem) {
            Ok(key) => return Ok(key),
            // Torn by a power failure: nothing depends on the old key, so a new one takes its place.
            Err(error) => log::warn!("the API's key {} is not usable ({error}): making a new one", path.display()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(fail("read", error)),
    }
    let key = KeyPair::generate().map_err(Error::MakeKey)?;
    write_durably(path, key.serialize_pem().as_bytes()).map_err(|error| fail("write", error))?;
    Ok(key)
}

fn read_capped(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(std::fs::File::open(path)?, MAX_KEY_BYTES), &mut text)?;
    Ok(text)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::BasicConstraints;
    use std::os::unix::fs::PermissionsExt as _;
    use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

    fn authority(folder: &Path) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Authority::open(&certificate.pem(), &key.serialize_pem(), &folder.join("tls/key.pem")).unwrap()
    }

    fn names(addresses: &[&str]) -> Names {
        let configured = ["keel.example".into(), "192.0.2.1".into(), "not a name".into()];
        Names::collect("node-1", &configured, addresses.iter().map(|text| text.parse().unwrap()))
    }

    #[test]
    fn a_certificate_has_what_go_clients_ask_for() {
        let folder = tempfile::tempdir().unwrap();
        let (certified, _) = authority(folder.path()).issue(names(&["10.0.2.15"]), OffsetDateTime::now_utc()).unwrap();
        let (_, certificate) = X509Certificate::from_der(&certified.cert[0]).unwrap();
        let alternatives = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
        assert!(alternatives.contains(&GeneralName::DNSName("keel.example")));
        assert!(alternatives.contains(&GeneralName::DNSName("node-1")));
        assert!(alternatives.contains(&GeneralName::IPAddress(&[10, 0, 2, 15])));
        assert!(alternatives.contains(&GeneralName::IPAddress(&[192, 0, 2, 1])));
        assert_eq!(alternatives.len(), 7);
        assert!(!certificate.basic_constraints().unwrap().unwrap().value.ca);
        assert!(certificate.extended_key_usage().unwrap().unwrap().value.server_auth);
        let identifiers = certificate.extensions().iter().filter(|extension| {
            let id = extension.oid.to_id_string();
            id == "2.5.29.14" || id == "2.5.29.35"
        });
        assert_eq!(identifiers.count(), 2);
    }

    #[test]
    fn the_key_stays_the_same_and_is_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tls/key.pem");
        let first = host_key(&path).unwrap().serialize_pem();
        assert_eq!(host_key(&path).unwrap().serialize_pem(), first);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_torn_key_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        std::fs::write(&path, "-----BEGIN PRIV").unwrap();
        let key = host_key(&path).unwrap().serialize_pem();
        assert_eq!(host_key(&path).unwrap().serialize_pem(), key);
    }

    #[test]
    fn renewal_is_due_near_the_end_on_new_names_and_when_the_clock_went_back() {
        let now = OffsetDateTime::now_utc();
        let issued = Issued { names: names(&[]), at: now };
        assert!(!issued.is_stale(&names(&[]), now + Duration::days(300)));
        assert!(issued.is_stale(&names(&[]), now + Duration::days(368)));
        assert!(issued.is_stale(&names(&["10.0.0.1"]), now));
        assert!(issued.is_stale(&names(&[]), now - Duration::days(2)));
    }
}
