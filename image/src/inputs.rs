//! Debian's packages that a release is made from: fetched with apt, whose signatures vouch for them, and pinned by
//! `inputs.lock`.
//!
//! A version that has left the archive is replaced by the current one, loudly, because a fresh clone must build on
//! every day; a changed hash under the same version never is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError, at};

/// The package whose dependency is the signed kernel.
const KERNEL_META: &str = "linux-image-6.12-cloud-amd64";
const BOOT_LOADER: &str = "systemd-boot-efi";
const CERTIFICATES: &str = "ca-certificates";

/// Why the inputs can't be had.
#[derive(Debug, thiserror::Error)]
pub enum InputsError {
    /// A file or program failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The lock file can't be understood.
    #[error("cannot understand the lock file {}; restore it, or write it anew with `keel-image inputs --update`", .0.display())]
    Lock(PathBuf, #[source] toml::de::Error),
    /// The archive doesn't have what is asked for.
    #[error(
        "the package archive has no {0}: run `apt-get update` and see that its security section is among the sources"
    )]
    NotInArchive(String),
    /// A package isn't what the lock file says.
    #[error(
        "{package} {version} has SHA-256 {found}, but the lock file says {locked}: the archive serves other bytes \
         under the same version; find out why before `keel-image inputs --update` accepts them"
    )]
    Hash {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What came.
        found: String,
        /// What was to come.
        locked: String,
    },
    /// A package lacks what it is fetched for.
    #[error("package {0} has no {1}: its layout has changed, and keel-image must learn the new one")]
    Content(String, String),
}

/// The lock file: packages by role.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Role (`kernel`, `boot-loader`, `certificates`) to package.
    pub package: BTreeMap<String, Locked>,
}

/// One locked package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locked {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256 of the `.deb`, in hexadecimal.
    pub sha256: String,
}

/// What the packages give, unpacked.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The kernel's release, as `uname -r` says it.
    pub kernel_release: String,
    /// bzImage.
    pub kernel: PathBuf,
    /// Folder with the modules, `modules.dep` and its companions.
    pub modules: PathBuf,
    /// The boot loader, unsigned.
    pub boot_loader: PathBuf,
    /// The UKI stub.
    pub stub: PathBuf,
    /// Folder with certificate authorities, one PEM file each.
    pub certificates: PathBuf,
    folder: PathBuf,
}

impl Inputs {
    /// A small file that changes with the package of a role.
    pub fn stamp(&self, role: &str) -> PathBuf {
        self.folder.join(format!("{role}.unpacked"))
    }
}

/// Fetches, checks and unpacks what isn't there yet, into `folder`. With `update`, takes the archive's current
/// versions and writes the lock file. `kernel` names the package of the kernel where the lock file doesn't; without it,
/// that is the current one.
pub fn fetch(folder: &Path, lock_file: &Path, update: bool, kernel: Option<&str>) -> Result<Inputs, InputsError> {
    files::create_folder(folder)?;
    let old = read_lock(lock_file)?;
    let mut lock = if update { Lock::default() } else { old.clone() };
    for role in ["kernel", "boot-loader", "certificates"] {
        let locked = obtain(folder, role, lock.package.get(role), kernel)?;
        unpack(folder, role, &locked)?;
        lock.package.insert(role.into(), locked);
    }
    if lock != old {
        write_lock(lock_file, &lock)?;
    }
    locate(folder)
}

/// What an earlier [`fetch`] left in `folder`.
pub fn locate(folder: &Path) -> Result<Inputs, InputsError> {
    let modules = folder.join("kernel/lib/modules");
    let missing = |what: &str| InputsError::Content("kernel".into(), what.into());
    let entry = fs::read_dir(&modules).map_err(at("list", &modules))?.next();
    let kernel_release = entry
        .ok_or_else(|| missing("lib/modules/*"))?
        .map_err(at("list", &modules))?
        .file_name()
        .into_string()
        .map_err(|_| missing("readable kernel release"))?;
    let inputs = Inputs {
        kernel: folder.join(format!("kernel/boot/vmlinuz-{kernel_release}")),
        modules: modules.join(&kernel_release),
        boot_loader: folder.join("boot-loader/usr/lib/systemd/boot/efi/systemd-bootx64.efi"),
        stub: folder.join("boot-loader/usr/lib/systemd/boot/efi/linuxx64.efi.stub"),
        certificates: folder.join("certificates/usr/share/ca-certificates/mozilla"),
        kernel_release,
        folder: folder.into(),
    };
    for path in [&inputs.kernel, &inputs.modules, &inputs.boot_loader, &inputs.stub, &inputs.certificates] {
        if !path.exists() {
            let role = path.strip_prefix(folder).unwrap_or(path);
            return Err(InputsError::Content("input".into(), role.display().to_string()));
        }
    }
    Ok(inputs)
}

/// Reads a lock file; one that isn't there names nothing.
pub fn read_lock(path: &Path) -> Result<Lock, InputsError> {
    if !path.exists() {
        return Ok(Lock::default());
    }
    let text = fs::read_to_string(path).map_err(at("read", path))?;
    toml::from_str(&text).map_err(|error| InputsError::Lock(path.into(), error))
}

/// Writes a lock file.
pub fn write_lock(path: &Path, lock: &Lock) -> Result<(), InputsError> {
    let text = toml::to_string(lock).unwrap_or_default();
    let head = "# The packages that releases are made from. Written by `keel-image inputs --update`.\n\n";
    Ok(files::write(path, format!("{head}{text}").as_bytes(), 0o644)?)
}

/// The `.deb` of a role, in the folder and checked.
fn obtain(folder: &Path, role: &str, locked: Option<&Locked>, kernel: Option<&str>) -> Result<Locked, InputsError> {
    if let Some(locked) = locked {
        if deb(folder, locked).exists() || download(folder, &locked.name, &locked.version).is_ok() {
            let found = files::sha256_of_file(&deb(folder, locked))?;
            if found == locked.sha256 {
                return Ok(locked.clone());
            }
            let Locked { name, version, sha256 } = locked.clone();
            return Err(InputsError::Hash { package: name, version, found, locked: sha256 });
        }
        log::warn!(
            "the package archive, as apt knows it, does not have {} {}: taking its current version instead, and writing \
             that into the lock file; if apt's lists are old, run `apt-get update`, restore the lock file, try again",
            locked.name,
            locked.version
        );
    }
    let name = match role {
        "kernel" => kernel.map_or_else(kernel_package, |name| Ok(name.to_owned()))?,
        "boot-loader" => BOOT_LOADER.into(),
        _ => CERTIFICATES.into(),
    };
    let version = candidate(&name)?;
    let mut locked = Locked { name, version, sha256: String::new() };
    if !deb(folder, &locked).exists() {
        download(folder, &locked.name, &locked.version)?;
    }
    locked.sha256 = files::sha256_of_file(&deb(folder, &locked))?;
    Ok(locked)
}

/// Where apt puts a package. It writes the colon of an epoch as `%3a`; none of ours is without architecture but one.
fn deb(folder: &Path, locked: &Locked) -> PathBuf {
    let architecture = if locked.name == CERTIFICATES { "all" } else { "amd64" };
    folder.join(format!("{}_{}_{architecture}.deb", locked.name, locked.version.replace(':', "%3a")))
}

fn download(folder: &Path, name: &str, version: &str) -> Result<(), FileError> {
    log::info!("fetching {name} {version}");
    files::run(Command::new("apt-get").args(["-q", "download", &format!("{name}={version}")]).current_dir(folder))?;
    Ok(())
}

/// The versioned, signed kernel package that the meta package depends on now.
fn kernel_package() -> Result<String, InputsError> {
    let text =
        files::run(Command::new("apt-cache").args(["depends", "--no-recommends", "--no-suggests", KERNEL_META]))?;
    let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    package.map(|rest| format!("linux-image-{rest}")).ok_or_else(|| InputsError::NotInArchive(KERNEL_META.into()))
}

fn candidate(name: &str) -> Result<String, InputsError> {
    let text = files::run(Command::new("apt-cache").args(["policy", name]))?;
    let version = text.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    let version = version.filter(|version| *version != "(none)");
    version.map(str::to_owned).ok_or_else(|| InputsError::NotInArchive(name.into()))
}

/// Unpacks a package, unless this very one is unpacked already: its hash is left beside it, last.
fn unpack(folder: &Path, role: &str, locked: &Locked) -> Result<(), InputsError> {
    let (target, stamp) = (folder.join(role), folder.join(format!("{role}.unpacked")));
    if target.exists() && fs::read_to_string(&stamp).is_ok_and(|text| text == locked.sha256) {
        return Ok(());
    }
    files::remove_folder(&target)?;
    files::create_folder(&target)?;
    files::run(Command::new("dpkg-deb").arg("-x").arg(deb(folder, locked)).arg(&target))?;
    if role == "kernel" {
        let release = locked.name.trim_start_matches("linux-image-");
        files::run(Command::new(files::sbin("depmod")).arg("-b").arg(&target).arg(release))?;
    }
    Ok(files::write(&stamp, locked.sha256.as_bytes(), 0o644)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_lock_is_readable_and_names_no_host() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("inputs.lock");
        let lock = read_lock(&path).unwrap();
        assert_eq!(lock.package.len(), 3);
        assert!(!fs::read_to_string(&path).unwrap().contains("http"));
    }

    #[test]
    fn a_package_with_an_epoch_is_found_under_apts_name() {
        let locked = Locked { name: "x".into(), version: "1:2-3".into(), sha256: String::new() };
        assert_eq!(deb(Path::new("in"), &locked), Path::new("in/x_1%3a2-3_amd64.deb"));
    }
}
