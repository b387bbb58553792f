//! A TPM 2.0 for a machine: `swtpm`, which keeps what it holds in a folder over power-ons.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::machine::path;

/// Longest wait for its socket.
const START_LIMIT: Duration = Duration::from_secs(20);

/// A TPM that is switched on. Dropping it cuts the power.
pub(crate) struct Tpm(Child);

impl Tpm {
    /// Switches it on, and says how QEMU reaches it.
    pub(crate) fn start(dir: &Path) -> Result<(Self, Vec<String>)> {
        let (state, socket) = (dir.join("tpm"), dir.join("tpm.sock"));
        fs::create_dir_all(&state).with_context(|| format!("create {}", state.display()))?;
        let _ = fs::remove_file(&socket);
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--tpmstate", &format!("dir={}", path(&state)?)])
            .args(["--ctrl", &format!("type=unixio,path={}", path(&socket)?)])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.join("tpm.log"))?)
            .spawn()
            .context("start swtpm: is the package swtpm installed?")?;
        let tpm = Self(process);
        let begun = Instant::now();
        while !socket.exists() {
            ensure!(begun.elapsed() < START_LIMIT, "swtpm made no socket: see {}", dir.join("tpm.log").display());
            std::thread::sleep(Duration::from_millis(10));
        }
        let channel = format!("socket,id=tpm-channel,path={}", path(&socket)?);
        let words =
            ["-chardev", &channel, "-tpmdev", "emulator,id=tpm,chardev=tpm-channel", "-device", "tpm-crb,tpmdev=tpm"];
        Ok((tpm, words.map(str::to_owned).to_vec()))
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
