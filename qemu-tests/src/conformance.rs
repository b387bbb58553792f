//! The OCI runtime's conformance suite, here and in a bare guest with cgroup v2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bare::{self, Done, Job};
use crate::machine::Clock;

/// For how long the suite may run in a guest, which is emulated.
const LIMIT: Duration = Duration::from_secs(600);
/// MiB of the guest's memory; everything lies in it.
const MEMORY_MIB: u32 = 1024;

/// The suite's programs and what they need.
pub struct Suite {
    build: PathBuf,
    programs: PathBuf,
    kernel: PathBuf,
}

impl Suite {
    /// Finds what `make conformance-programs` and `make inputs` made.
    pub fn here() -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has a parent folder")?;
        let build = source.join("build");
        let programs = build.join("conformance");
        for name in ["keel-oci", "keel-oci-conformance", "keel-oci-probe"] {
            let path = programs.join(name);
            ensure!(path.exists(), "{} isn't there: run `make conformance-programs` first", path.display());
        }
        let kernel = keel_image::inputs::locate(&build.join("inputs")).context("run `make inputs` first")?.kernel;
        Ok(Self { build, programs, kernel })
    }

    /// Our runtime.
    pub fn runtime(&self) -> PathBuf {
        self.programs.join("keel-oci")
    }

    /// A folder for the files of a run.
    pub fn place(&self, name: &str) -> PathBuf {
        self.build.join("tests").join(name)
    }

    /// What serves as a bare guest's init.
    pub fn init(&self) -> PathBuf {
        self.programs.join("keel-oci-probe")
    }

    /// The suite, to be run on the workstation.
    pub fn command(&self) -> Command {
        Command::new(self.programs.join("keel-oci-conformance"))
    }

    /// The suite in a guest. `peers` are further runtimes of the workstation; `words` are its arguments beside the
    /// runtimes.
    pub fn in_guest(&self, name: &str, peers: &[PathBuf], words: &[String], clock: Clock) -> Result<Done> {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut command = vec!["/bin/keel-oci-conformance".to_owned()];
        for program in ["keel-oci", "keel-oci-conformance", "keel-oci-probe"] {
            files.insert(format!("/bin/{program}"), self.programs.join(program));
        }
        command.extend(["--runtime".to_owned(), "/bin/keel-oci".to_owned()]);
        for peer in peers {
            files.extend(bare::with_libraries(peer)?);
            let name = peer.file_name().and_then(|name| name.to_str()).context("a runtime's path ends in a name")?;
            command.extend(["--runtime".to_owned(), format!("/bin/{name}")]);
        }
        command.extend_from_slice(words);
        bare::run(&Job {
            dir: &self.place(name),
            kernel: &self.kernel,
            init: &self.init(),
            files,
            modules: Vec::new(),
            command,
            memory_mib: MEMORY_MIB,
            clock,
            limit: LIMIT,
        })
    }
}

/// Debian's runtimes, found where Debian puts them.
pub fn peers() -> Result<Vec<PathBuf>> {
    let found = [("crun", "/usr/bin/crun"), ("runc", "/usr/sbin/runc")].map(|(name, path)| {
        ensure!(Path::new(path).exists(), "{name} isn't installed: `make deps` installs it");
        Ok(PathBuf::from(path))
    });
    found.into_iter().collect()
}
