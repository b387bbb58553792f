//! The unified kernel image: stub, kernel, initrd and command line in one signed PE file.

use std::path::{Path, PathBuf};
use std::process::Command;

use keel_spec::cmdline::BootParameters;
use keel_spec::release::Version;

use crate::files::{self, FileError};
use crate::pe::{self, PeError};

/// Why a UKI can't be made.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// A file or program failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The stub can't take the sections.
    #[error("cannot add the kernel to the boot stub {}", stub.display())]
    Pe {
        /// The stub.
        stub: PathBuf,
        /// Why.
        source: PeError,
    },
}

/// The Secure Boot key that firmware trusts (`db`).
#[derive(Clone, Debug)]
pub struct SigningKey {
    /// Private key, PEM.
    pub key: PathBuf,
    /// Certificate, PEM.
    pub certificate: PathBuf,
}

impl SigningKey {
    /// The folder that it lies in.
    pub fn folder(&self) -> &Path {
        self.key.parent().unwrap_or(Path::new("."))
    }
}

/// The kernel's own parameters, after Keel's:
/// a panic or an oops restarts the machine (the trial counts on it) after leaving its dump in EFI variables;
/// both consoles get messages, the serial one is `/dev/console`; only signed code enters the kernel; and the timer
/// check is left out, which panics in virtual machines on busy hosts. The kernel's tests of its own ciphers, which take
/// longer than all the rest of its start, are left out as well (nothing on a host asks for FIPS 140). `gpt` lets the kernel take the backup partition
/// table when a write of the primary one was torn.
const KERNEL_PARAMETERS: &str = "panic=5 oops=panic gpt console=tty0 console=ttyS0,115200 \
     quiet loglevel=4 lockdown=integrity slab_nomerge vsyscall=none randomize_kstack_offset=on cgroup_no_v1=all \
     no_timer_check cryptomgr.notests";

/// The kernel command line of a release.
pub fn command_line(parameters: &BootParameters, extra: Option<&str>) -> String {
    let mut line = format!("{} {KERNEL_PARAMETERS}", parameters.render());
    if let Some(extra) = extra {
        line.push(' ');
        line.push_str(extra);
    }
    line
}

/// What tells releases apart, in the format of os-release(5).
pub fn os_release(version: &Version, profile: &str, built_unix_s: u64) -> String {
    format!(
        "NAME=Keel\nID=keel\nPRETTY_NAME=\"Keel {version}\"\nVERSION_ID={version}\nIMAGE_ID=keel\n\
         IMAGE_VERSION={version}\nVARIANT_ID={profile}\nKEEL_PROFILE={profile}\nBUILD_UNIX_S={built_unix_s}\n"
    )
}

/// What goes into a UKI.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The stub's file.
    pub stub: &'a Path,
    /// os-release(5).
    pub os_release: &'a str,
    /// Kernel command line.
    pub command_line: &'a str,
    /// `uname -r`.
    pub kernel_release: &'a str,
    /// bzImage.
    pub kernel: &'a [u8],
    /// cpio archive.
    pub initrd: &'a [u8],
}

/// The kernel under the owner's own signature, in place of Debian's: a running kernel takes another one (kexec) only if a
/// key in the firmware's `db` signed it, and that is the owner's. The result is kept in `folder`, so that the kernel is
/// the same, byte for byte, in every release that has it.
pub fn signed_kernel(kernel: &Path, key: &SigningKey, folder: &Path) -> Result<Vec<u8>, FileError> {
    let parts = [files::sha256_of_file(kernel)?, files::sha256_of_file(&key.certificate)?].concat();
    let signed = folder.join(format!("kernel-{}.signed", &files::hex(&files::sha256(&[parts.as_bytes()]))[..16]));
    if !signed.exists() {
        let bare = signed.with_extension(format!("{}.unsigned", std::process::id()));
        std::fs::copy(kernel, &bare).map_err(files::at("copy", kernel))?;
        // A second signature beside the first is more than the kernel's own reader takes.
        files::run(Command::new("sbattach").arg("--remove").arg(&bare))?;
        let part = signed.with_extension(format!("{}.part", std::process::id()));
        sign(&bare, key, &part)?;
        std::fs::rename(&part, &signed).map_err(files::at("write", &signed))?;
        std::fs::remove_file(&bare).map_err(files::at("remove", &bare))?;
    }
    files::read(&signed)
}

/// Puts the parts together and signs the result into `out`.
pub fn make(parts: &Parts, key: &SigningKey, out: &Path) -> Result<(), UkiError> {
    let stub = files::read(parts.stub)?;
    let sections = [
        (".osrel", parts.os_release.as_bytes()),
        (".cmdline", parts.command_line.as_bytes()),
        (".uname", parts.kernel_release.as_bytes()),
        (".initrd", parts.initrd),
        // Last: the kernel may use memory behind itself while it starts.
        (".linux", parts.kernel),
    ];
    let image =
        pe::add_sections(&stub, &sections).map_err(|source| UkiError::Pe { stub: parts.stub.into(), source })?;
    let unsigned = out.with_extension("unsigned");
    files::write(&unsigned, &image, 0o644)?;
    sign(&unsigned, key, out)?;
    let removed = std::fs::remove_file(&unsigned);
    Ok(removed.map_err(files::at("remove", &unsigned))?)
}

/// Signs a PE file. The signature holds the time, the one part of a release that differs between equal builds.
pub fn sign(unsigned: &Path, key: &SigningKey, out: &Path) -> Result<(), FileError> {
    let mut command = Command::new("sbsign");
    command.arg("--key").arg(&key.key).arg("--cert").arg(&key.certificate).arg("--output").arg(out).arg(unsigned);
    files::run(&mut command)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keels_parameters_survive_those_of_the_kernel() {
        let parameters =
            BootParameters { root_hash: "ab".repeat(32).parse().unwrap(), root_blocks: 9, watchdog_s: 10, trial_s: 60 };
        let line = command_line(&parameters, Some("keel.trial_s=20"));
        let read = BootParameters::parse(&line).unwrap();
        assert_eq!(read, BootParameters { trial_s: 20, ..parameters });
    }
}
