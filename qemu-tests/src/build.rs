//! Releases and disks, made by the project's own `keel-image`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Bytes of a test machine's disk: the image grown, so that first-boot growth has something to do.
pub const DISK_BYTES: u64 = 4 << 30;
/// Version that machines start with.
pub const FIRST: &str = "0.1.0";
/// Version that they are updated to.
pub const SECOND: &str = "0.2.0";

/// Where the project's files are, and what was built from them.
#[derive(Clone, Debug)]
pub struct Build {
    /// The checkout.
    pub source: PathBuf,
    /// Its `build/` folder.
    pub build: PathBuf,
    /// Folder of the keys that releases, disks and repositories are signed with.
    pub keys: PathBuf,
    /// Folder of the programs that releases are made of.
    pub programs: PathBuf,
}

impl Build {
    /// The checkout that this program was compiled in.
    pub fn here() -> Result<Self> {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has a parent folder")?.to_owned();
        let build = source.join("build");
        for (needed, maker) in [("programs/init", "make programs"), ("certs/cert.pem", "make image")] {
            if !build.join(needed).exists() {
                bail!("{} isn't there: run `{maker}` first", build.join(needed).display());
            }
        }
        let keys = build.join("keys");
        let programs = build.join("programs");
        Ok(Self { source, build, keys, programs })
    }

    /// The same, but that releases are made of an earlier revision's programs.
    pub fn of_earlier_programs(&self) -> Result<Self> {
        let programs = self.build.join("earlier/programs");
        if !programs.exists() {
            bail!("no programs of an earlier revision are there: run `make earlier` first");
        }
        Ok(Self { programs, ..self.clone() })
    }

    /// Folder for the files of one scenario, emptied.
    pub fn fresh_folder(&self, name: &str) -> Result<PathBuf> {
        let dir = self.build.join("tests").join(name);
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        Ok(dir)
    }

    /// The kernel that releases are made from.
    pub fn kernel(&self) -> Result<PathBuf> {
        Ok(keel_image::inputs::locate(&self.build.join("inputs")).context("run `make inputs` first")?.kernel)
    }

    /// Client certificates, as `DOCKER_CERT_PATH` wants them.
    pub fn certs(&self) -> PathBuf {
        self.build.join("certs")
    }

    /// One of the programs that break a release on purpose.
    pub fn fault(&self, name: &str) -> PathBuf {
        self.build.join("faults").join(name)
    }

    /// Builds a release into `out`; `replace` names files of the root image and what to put in their place.
    pub fn release(&self, version: &str, out: &Path, replace: &[(&str, &Path)], cmdline: &str) -> Result<()> {
        let mut command = self.keel_image();
        command.args(["release", "--version", version, "--programs"]).arg(&self.programs).arg("--out").arg(out);
        command.arg("--keys").arg(&self.keys);
        for (target, file) in replace {
            command.arg("--replace").arg(format!("{target}={}", file.display()));
        }
        if !cmdline.is_empty() {
            command.arg(format!("--cmdline={cmdline}"));
        }
        run(&mut command)
    }

    /// Builds a disk image with one release installed.
    pub fn disk(&self, release: &Path, out: &Path) -> Result<()> {
        let mut command = self.keel_image();
        command.arg("disk").arg("--keys").arg(&self.keys).arg("--release").arg(release).arg("--out").arg(out);
        run(&mut command)
    }

    /// Publishes a release in an update repository.
    pub fn publish(&self, release: &Path, repository: &Path) -> Result<()> {
        let mut command = self.keel_image();
        command.arg("publish").arg("--keys").arg(&self.keys).arg("--release").arg(release);
        run(command.arg("--repository").arg(repository))
    }

    /// `keel-image`, which cargo puts beside this program, run in the checkout.
    pub fn keel_image(&self) -> Command {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("keel-image")));
        let mut command = Command::new(beside.unwrap_or_else(|| self.source.join("target/debug/keel-image")));
        command.current_dir(&self.source);
        command
    }
}

/// Runs a command to its end; what it printed is in the error.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {:?}", command.get_program()))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// SHA-256 in hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    ring::digest::digest(&ring::digest::SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
