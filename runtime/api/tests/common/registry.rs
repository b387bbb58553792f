//! Debian's registry, and the `docker` client with a login to it.

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::{Daemon, wait_until};

/// Longest wait for the registry.
const LIMIT: Duration = Duration::from_secs(20);

/// Debian's registry, for `keel` with the password `secret` only; as long as this value lives.
pub struct Registry {
    child: Child,
    pub address: String,
    folder: tempfile::TempDir,
}

impl Registry {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let (data, users) = (folder.path().join("data"), folder.path().join("htpasswd"));
        // bcrypt of "secret".
        std::fs::write(&users, "keel:$2b$05$8OT1ffkG1M87qHWuWp1ZSOYgMCmD2XAUcWirVCDdBsny75h6Rcumy\n").unwrap();
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n\
             auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            data.display(),
            users.display()
        );
        let file = folder.path().join("registry.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("docker-registry is among the packages of `make deps`");
        let registry = Self { child, address, folder };
        wait_until("the registry", LIMIT, || TcpStream::connect(&registry.address).is_ok());
        registry
    }

    /// A daemon that speaks to it without TLS; `more`: further lines of its `[registry]`.
    pub fn daemon(&self, more: &str) -> Daemon {
        Daemon::start_in(tempfile::tempdir_in("/dev/shm").unwrap(), &self.config(more))
    }

    pub fn config(&self, more: &str) -> String {
        format!("[registry]\ninsecure = [{:?}]\n{more}", self.address)
    }

    /// The client with logins of its own.
    pub fn docker(&self, daemon: &Daemon, words: &[&str], input: &str) -> Output {
        let logins = self.folder.path().join("logins").display().to_string();
        daemon.docker(&[&["--config", &logins], words].concat(), input.as_bytes())
    }

    pub fn ok(&self, daemon: &Daemon, words: &[&str]) -> String {
        let output = self.docker(daemon, words, "");
        assert!(output.status.success(), "{words:?}: {}", told(&output));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What a call that must fail says.
    pub fn refused(&self, daemon: &Daemon, words: &[&str]) -> String {
        let output = self.docker(daemon, words, "");
        assert!(!output.status.success(), "{words:?} must be refused: {}", told(&output));
        told(&output)
    }

    pub fn login(&self, daemon: &Daemon, password: &str) -> Output {
        self.docker(daemon, &["login", "--username=keel", "--password-stdin", &self.address], password)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// All that a client says.
pub fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
