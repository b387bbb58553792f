//! Debian's registry on a free port of loopback.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A registry that runs as long as this value lives.
pub struct Registry {
    child: Child,
    pub address: String,
    /// The authority of its certificate, PEM, where it has one.
    pub ca_pem: Option<String>,
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Without TLS and without credentials.
pub fn plain(folder: &Path) -> Registry {
    start(folder, String::new(), None)
}

/// With a certificate of its own authority, and for `keel` with the password `secret` only.
pub fn guarded(folder: &Path) -> Registry {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    std::fs::write(folder.join("cert.pem"), leaf.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    // bcrypt of "secret".
    let password = "keel:$2b$05$8OT1ffkG1M87qHWuWp1ZSOYgMCmD2XAUcWirVCDdBsny75h6Rcumy\n";
    std::fs::write(folder.join("htpasswd"), password).unwrap();
    let (cert, key, users) = (folder.join("cert.pem"), folder.join("key.pem"), folder.join("htpasswd"));
    let more = format!(
        "  tls:\n    certificate: {}\n    key: {}\nauth:\n  htpasswd:\n    realm: test\n    path: {}\n",
        cert.display(),
        key.display(),
        users.display()
    );
    start(folder, more, Some(ca_pem))
}

fn start(folder: &Path, more: String, ca_pem: Option<String>) -> Registry {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = format!("127.0.0.1:{port}");
    let data = folder.join("registry");
    std::fs::create_dir(&data).unwrap();
    let config = format!(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{more}",
        data.display()
    );
    std::fs::write(folder.join("registry.yml"), config).unwrap();
    let child = Command::new("docker-registry")
        .arg("serve")
        .arg(folder.join("registry.yml"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry; is it installed?");
    let registry = Registry { child, address, ca_pem };
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(&registry.address).is_err() {
        assert!(Instant::now() < deadline, "the registry doesn't come up");
        thread::sleep(Duration::from_millis(20));
    }
    registry
}
