//! The OCI runtime's conformance suite, here and in a bare guest with cgroup v2.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bare::{self, Done, Job};
use crate::machine::Clock;
use crate::policies::{self, Policy};

/// For how long the suite may run in a guest, which is emulated.
const LIMIT: Duration = Duration::from_secs(1200);
/// MiB of the guest's memory; everything lies in it.
const MEMORY_MIB: u32 = 1024;
/// A disk that keeps nothing, for limits on its use.
const MODULES: [&str; 1] = ["null_blk"];

/// A run of the suite in a guest.
pub struct Run<'a> {
    /// Names its folder.
    pub name: &'a str,
    /// Further runtimes of the workstation.
    pub peers: &'a [PathBuf],
    /// The suite's arguments beside the runtimes.
    pub words: &'a [String],
    /// How the guest's time passes.
    pub clock: Clock,
    /// For a security module of its kernel.
    pub policy: Option<&'a Policy>,
}

/// The suite's programs and what they need.
pub struct Suite {
    source: PathBuf,
    build: PathBuf,
    programs: PathBuf,
    kernel: PathBuf,
    modules: Vec<PathBuf>,
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
        let inputs = keel_image::inputs::locate(&build.join("inputs")).context("run `make inputs` first")?;
        let modules = bare::with_needs(&inputs.modules, &MODULES)?;
        Ok(Self { source: source.to_owned(), build, programs, kernel: inputs.kernel, modules })
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

    /// The profiles that the cases about AppArmor need.
    pub fn apparmor(&self) -> Result<Policy> {
        policies::apparmor(&self.policy_source("apparmor"), &self.place("policies"))
    }

    /// The policy that the cases about SELinux need.
    pub fn selinux(&self) -> Result<Policy> {
        policies::selinux(&self.policy_source("selinux.cil"), &self.place("policies"))
    }

    fn policy_source(&self, name: &str) -> PathBuf {
        self.source.join("runtime/oci/conformance/policy").join(name)
    }

    /// Whether there are cases for these arguments.
    pub fn has_cases(&self, words: &[String]) -> Result<bool> {
        let mut command = self.command();
        command.arg("--list").args(words).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(command.status().context("ask the suite for its cases")?.success())
    }

    /// The suite in a guest.
    pub fn in_guest(&self, run: &Run<'_>) -> Result<Done> {
        let mut files: BTreeMap<String, PathBuf> = BTreeMap::new();
        let mut command = vec!["/bin/keel-oci-conformance".to_owned()];
        for program in ["keel-oci", "keel-oci-conformance", "keel-oci-probe"] {
            files.insert(format!("/bin/{program}"), self.programs.join(program));
        }
        command.extend(["--runtime".to_owned(), "/bin/keel-oci".to_owned()]);
        for peer in run.peers {
            files.extend(bare::with_libraries(peer)?);
            let name = peer.file_name().and_then(|name| name.to_str()).context("a runtime's path ends in a name")?;
            command.extend(["--runtime".to_owned(), format!("/bin/{name}")]);
        }
        command.extend_from_slice(run.words);
        let mut policies = BTreeMap::new();
        if let Some(policy) = run.policy {
            files.insert("/policy".to_owned(), policy.file.clone());
            policies.insert("/policy".to_owned(), policy.entry.to_owned());
        }
        bare::run(&Job {
            dir: &self.place(run.name),
            kernel: &self.kernel,
            init: &self.init(),
            files,
            kernel_words: run.policy.map_or("", |policy| policy.kernel_words),
            policies,
            modules: self.modules.clone(),
            command,
            memory_mib: MEMORY_MIB,
            clock: run.clock,
            limit: match run.clock {
                Clock::Real => LIMIT,
                Clock::Instructions => LIMIT * 4,
            },
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
