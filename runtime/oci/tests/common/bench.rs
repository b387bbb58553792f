//! A bundle for the command, and what it must not leave behind.

use std::path::{Path, PathBuf};
use std::process::Command;

use keel_oci::spec::Spec;

use super::Image;

/// A bundle that `keel-oci` is run on, with all that it might leave behind.
pub struct Bench {
    pub image: Image,
    pub dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Self { image: Image::new(), dir: tempfile::tempdir().unwrap() }
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Writes the configuration.
    pub fn configure(&self, spec: &Spec) {
        let mut spec = spec.clone();
        spec.oci_version = "1.2.0".into();
        spec.root.get_or_insert_default().path = self.image.path("").to_str().unwrap().into();
        std::fs::write(self.dir.path().join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
    }

    /// A verb that takes a bundle.
    pub fn call(&self, spec: &Spec, verb: &[&str]) -> std::process::Output {
        self.configure(spec);
        self.command(verb).arg("--bundle").arg(self.dir.path()).output().unwrap()
    }

    /// A verb that takes a bundle, of which nothing is heard: a container may hold what it is heard by.
    pub fn call_detached(&self, spec: &Spec, verb: &[&str]) -> std::process::ExitStatus {
        self.configure(spec);
        let null = std::process::Stdio::null;
        let mut command = self.command(verb);
        command.arg("--bundle").arg(self.dir.path()).stdin(null()).stdout(null()).stderr(null()).status().unwrap()
    }

    /// A verb.
    pub fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keel-oci"));
        command.arg("--root").arg(self.root()).args(verb);
        command
    }
}

/// Processes of the runtime and mounts that have to do with a folder.
pub fn left_over(bench: &Bench, id: &str) -> Vec<String> {
    let mut out: Vec<String> =
        std::fs::read_dir(bench.root()).into_iter().flatten().flatten().map(|e| format!("{e:?}")).collect();
    let image = bench.image.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    out.extend(mounts.lines().filter(|l| l.contains(&image)).map(str::to_owned));
    for cgroup in ["/sys/fs/cgroup/keel-oci", "/sys/fs/cgroup/unified/keel-oci"] {
        let cgroup = Path::new(cgroup).join(id);
        out.extend(cgroup.exists().then(|| cgroup.display().to_string()));
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environ = entry.path().join("mountinfo");
        // Whoever is set up inside sees the image as a mount's root.
        let inside = std::fs::read_to_string(environ).is_ok_and(|text| text.contains(&format!(" {image} / ")));
        out.extend(inside.then(|| format!("{entry:?}")));
    }
    out
}
