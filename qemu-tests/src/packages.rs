//! Debian packages, fetched by apt from where this machine gets its own, and unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::build::run;

/// These packages and what they need, in a folder, in apt's order. Those whose file names begin like one of `without`
/// are left out.
pub fn fetch(folder: &Path, packages: &[&str], without: &[&str]) -> Result<Vec<PathBuf>> {
    fs::create_dir_all(folder)?;
    let listed = Command::new("apt-get")
        .args(["-o", "Dir::State::status=/dev/null", "--print-uris", "-qq", "-y", "--no-install-recommends", "install"])
        .args(packages)
        .output()
        .context("run apt-get")?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    // `'http://…/name.deb' name_version_arch.deb size digest`
    let names: Vec<&str> = text.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    ensure!(!names.is_empty(), "apt knows nothing of {packages:?}: {}", String::from_utf8_lossy(&listed.stderr));
    let wanted: Vec<&str> =
        names.into_iter().filter(|name| !without.iter().any(|other| name.starts_with(other))).collect();
    let missing = wanted.iter().filter(|name| !folder.join(name).exists());
    let orders: Vec<String> = missing
        .filter_map(|name| {
            let mut parts = name.split('_');
            Some(format!("{}={}", parts.next()?, parts.next()?.replace("%3a", ":")))
        })
        .collect();
    if !orders.is_empty() {
        eprintln!("fetching {} packages", orders.len());
        run(Command::new("apt-get").args(["-qq", "download"]).args(&orders).current_dir(folder))?;
    }
    Ok(wanted.iter().map(|name| folder.join(name)).collect())
}

/// Unpacks a package into a folder, whose links to folders stay.
pub fn unpack(package: &Path, root: &Path) -> Result<()> {
    let unpack = "dpkg-deb --fsys-tarfile \"$1\" | tar -x --keep-directory-symlink -C \"$2\"";
    run(Command::new("sh").args(["-c", unpack, "sh"]).arg(package).arg(root))
}
