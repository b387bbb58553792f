//! What others fetch for the same update: casync's chunks with the earlier files as seeds, and a bundle of RAUC's.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::build::{Build, run};
use crate::repository::Server;

/// An update, file by file.
pub struct Update<'a> {
    /// Folder for the others' files; there is nothing in it.
    pub folder: PathBuf,
    /// Name of each file, and where the earlier and the new one are.
    pub files: Vec<(&'a str, PathBuf, PathBuf)>,
}

impl Update<'_> {
    /// Bytes that casync fetches from a web server: indexes, and the chunks that the earlier files haven't. Chunks are
    /// compressed, as casync does by itself.
    pub fn casync(&self) -> Result<u64> {
        let published = self.folder.join("casync");
        let store = published.join("default.castr");
        fs::create_dir_all(&published)?;
        for (name, _, new) in &self.files {
            let mut make = Command::new("casync");
            make.arg("make").arg(format!("--store={}", store.display()));
            casync(make.arg(published.join(format!("{name}.caibx"))).arg(new))?;
        }
        let server = Server::start(&published)?;
        let address = format!("http://127.0.0.1:{}", server.port());
        for (name, old, new) in &self.files {
            let out = self.folder.join(name);
            let mut extract = Command::new("casync");
            extract.args(["extract", &format!("--store={address}/default.castr")]);
            extract.arg(format!("--seed={}", old.display()));
            casync(extract.arg(format!("{address}/{name}.caibx")).arg(&out))?;
            ensure!(fs::read(&out)? == fs::read(new)?, "casync made another {name}");
        }
        Ok(server.served_bytes())
    }

    /// Bytes of a bundle with the new files, which RAUC fetches whole.
    pub fn rauc(&self, build: &Build) -> Result<u64> {
        let content = self.folder.join("rauc");
        fs::create_dir_all(&content)?;
        let mut manifest = String::from("[update]\ncompatible=keel\nversion=2\n[bundle]\nformat=verity\n");
        for (name, _, new) in &self.files {
            fs::copy(new, content.join(format!("{name}.img")))?;
            manifest.push_str(&format!("[image.{name}]\nfilename={name}.img\n"));
        }
        fs::write(content.join("manifest.raucm"), manifest)?;
        let bundle = self.folder.join("update.raucb");
        let key = |name: &str, option: &str| format!("--{option}={}", build.keys.join(name).display());
        let mut command = Command::new("rauc");
        command.arg("bundle").args([key("db.crt", "cert"), key("db.key", "key")]).arg(&content).arg(&bundle);
        run(&mut command)
            .map_err(|error| error.context("run rauc: are the packages rauc and squashfs-tools installed?"))?;
        Ok(fs::metadata(bundle)?.len())
    }
}

fn casync(command: &mut Command) -> Result<()> {
    run(command).map_err(|error| error.context("run casync: is the package casync installed?"))
}
