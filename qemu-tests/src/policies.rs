//! Policies for the kernel's security modules, compiled here for a guest: the workstation's kernel may have neither
//! module, and its own policy is nobody's business.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// What AppArmor's compiler is told of the kernel: of features that it doesn't list, the kernel isn't asked anything.
const APPARMOR_FEATURES: &str = "/etc/apparmor.d/abi/3.0";

/// A compiled policy.
pub struct Policy {
    /// The file here.
    pub file: PathBuf,
    /// Where the guest's kernel takes it.
    pub entry: &'static str,
    /// What the kernel's command line must say so that this module is in force: it takes one of the two.
    pub kernel_words: &'static str,
}

/// AppArmor profiles (apparmor.d(5)).
pub fn apparmor(source: &Path, place: &Path) -> Result<Policy> {
    ensure!(Path::new(APPARMOR_FEATURES).exists(), "{APPARMOR_FEATURES} isn't there: `make deps` installs apparmor");
    let file = place.join("apparmor");
    // Neither loaded here, nor kept in the workstation's cache.
    let words = ["--skip-kernel-load", "--skip-cache", "--features-file", APPARMOR_FEATURES, "--ofile"];
    compile(place, Command::new("apparmor_parser").args(words).arg(&file).arg(source), "apparmor")?;
    Ok(Policy { file, entry: "/sys/kernel/security/apparmor/.load", kernel_words: "security=apparmor apparmor=1" })
}

/// A policy in SELinux's Common Intermediate Language, in force.
pub fn selinux(source: &Path, place: &Path) -> Result<Policy> {
    let file = place.join("selinux");
    let contexts = place.join("selinux.contexts");
    let mut command = Command::new("secilc");
    compile(place, command.arg("-o").arg(&file).arg("-f").arg(contexts).arg(source), "secilc")?;
    Ok(Policy { file, entry: "/sys/fs/selinux/load", kernel_words: "security=selinux enforcing=1" })
}

fn compile(place: &Path, command: &mut Command, package: &str) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("create {}", place.display()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {program}: `make deps` installs {package}"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
