//! Debian's `docker-registry`, a real OCI registry, on loopback.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A running registry. Dropping it stops it.
pub struct Registry {
    server: Child,
    port: u16,
}

impl Registry {
    /// Starts a registry with its content in `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let config = dir.join("config.yml");
        fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{level: warn}}\nstorage:\n  filesystem: {{rootdirectory: {}}}\n  delete: {{enabled: \
                 true}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
                dir.join("content").display()
            ),
        )?;
        let messages = fs::File::create(dir.join("registry.log"))?;
        let server = Command::new("docker-registry")
            .args(["serve".as_ref(), config.as_os_str()])
            .stdin(Stdio::null())
            .stdout(messages.try_clone()?)
            .stderr(messages)
            .spawn()
            .context("start docker-registry: is the package of that name installed?")?;
        let registry = Self { server, port };
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begun.elapsed() > Duration::from_secs(30) {
                bail!(
                    "docker-registry didn't open port {port} within 30 s, see {}",
                    dir.join("registry.log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    /// Port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Puts a `docker save` archive into it under `name:tag`.
    pub fn push(&self, archive: &Path, name_and_tag: &str) -> Result<()> {
        let output = Command::new("skopeo")
            .args(["--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"])
            .arg(format!("docker-archive:{}", archive.display()))
            .arg(format!("docker://127.0.0.1:{}/{name_and_tag}", self.port))
            .output()
            .context("run skopeo: is the package of that name installed?")?;
        if !output.status.success() {
            bail!("skopeo copy {name_and_tag}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
