//! Who may what over TLS, with the real `docker` client and certificates of three roles.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::Daemon;
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};

struct Authority {
    certificate: String,
    key: String,
    issuer: Issuer<'static, KeyPair>,
}

fn parameters(name: &str, unit: Option<&str>) -> CertificateParams {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    if let Some(unit) = unit {
        parameters.distinguished_name.push(DnType::OrganizationalUnitName, unit);
    }
    parameters
}

fn authority() -> Authority {
    let mut parameters = parameters("test authority", None);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap().pem();
    Authority { certificate, key: key.serialize_pem(), issuer: Issuer::new(parameters, key) }
}

/// Writes what the `docker` client wants of a user.
fn user(authority: &Authority, folder: &Path, name: &str, unit: Option<&str>) {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = parameters(name, unit).signed_by(&key, &authority.issuer).unwrap();
    std::fs::write(folder.join("ca.pem"), &authority.certificate).unwrap();
    std::fs::write(folder.join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

fn docker(folder: &Path, user: &str, port: u16, words: &[&str]) -> Output {
    Command::new("timeout")
        .args(["--signal=KILL", "60", "docker", "--tlsverify", "-H"])
        .arg(format!("tcp://127.0.0.1:{port}"))
        .args(words)
        .env("DOCKER_CERT_PATH", folder.join(user))
        .env("DOCKER_CONFIG", folder)
        .output()
        .expect("run timeout and docker: see `make deps`")
}

#[test]
fn readers_see_runners_run_and_the_host_is_for_administrators() {
    let authority = authority();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "[api]\nlisten = \"127.0.0.1:{port}\"\nnames = [\"127.0.0.1\"]\nclient_ca_pem = '''\n{0}'''\n\
         issuer_cert_pem = '''\n{0}'''\nissuer_key_pem = '''\n{1}'''\n[[api.user]]\nname = \"ruth\"\nrole = \"run\"\n",
        authority.certificate, authority.key
    );
    let daemon = Daemon::start_in(tempfile::tempdir_in("/dev/shm").unwrap(), &config);
    daemon.import_busybox();
    let folder = daemon.folder.path();
    for (name, unit) in [("rhea", Some("read")), ("ruth", None), ("adam", None)] {
        user(&authority, folder, name, unit);
    }
    let allowed = |who: &str, words: &[&str]| {
        let output = docker(folder, who, port, words);
        assert!(output.status.success(), "{who}: {words:?}: {output:?}");
    };
    let refused = |who: &str, words: &[&str], needs: &str| {
        let output = docker(folder, who, port, words);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains(&format!("needs the role {needs}")),
            "{who}: {words:?}: {text}"
        );
    };
    let run = ["run", "--rm", "--network", "none"];
    let with = |options: &[&'static str]| [&run[..], options, &["box:1", "cat", "/etc/hostname"]].concat();
    allowed("rhea", &["ps", "-a"]);
    refused("rhea", &with(&[]), "run");
    refused("rhea", &["pull", "box:1"], "run");
    allowed("ruth", &with(&[]));
    allowed("ruth", &with(&["--cap-add", "ALL", "-v", "data:/x"]));
    for options in [
        &["--privileged"][..],
        &["-v", "/etc:/x"],
        &["--pid", "host"],
        &["--userns", "host"],
        &["--security-opt", "seccomp=unconfined"],
        &["--device", "/dev/null"],
    ] {
        refused("ruth", &with(options), "admin");
    }
    allowed(
        "adam",
        &["run", "-d", "--name", "strong", "--network", "none", "-v", "/etc:/x:ro", "box:1", "sleep", "99"],
    );
    refused("ruth", &["exec", "strong", "cat", "/x/shadow"], "admin");
    refused("ruth", &["cp", "strong:/x/shadow", "-"], "admin");
    refused("ruth", &with(&["--volumes-from", "strong"]), "admin");
    refused("ruth", &with(&["--pid", "container:strong"]), "admin");
    allowed("ruth", &["stop", "-t", "0", "strong"]);
    allowed("adam", &with(&["--volumes-from", "strong"]));
    refused("ruth", &["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/etc", "evil"], "admin");
}
