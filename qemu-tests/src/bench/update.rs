//! What an update fetches, how long it takes to write, how much memory that needs, and the states of the disk that a
//! power cut may leave. All on this machine, with the updater's own code on a disk image.
//!
//! A pair of releases needs an earlier build ([`super::earlier`]). A figure whose pair isn't there is absent.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use keel_spec::release::{Release, ReleaseFile};

use super::update_peers::Update;
use super::{Figure, earlier};
use crate::build::{Build, FIRST, SECOND, run};
use crate::repository::Server;

const BLOCK: usize = 4096;
/// Installs and copies that are timed, in turn.
const ROUNDS: usize = 5;

/// What `install_to_image` prints.
#[derive(Clone, Copy, serde::Deserialize)]
struct Installed {
    fetched_bytes: u64,
    seconds: f64,
    peak_kib: u64,
}

/// Two releases, the first on a disk image, the second in a repository.
struct Pair {
    folder: PathBuf,
    server: Server,
}

impl Pair {
    fn new(build: &Build, name: &str, programs: &Path, inputs: &Path) -> Result<Self> {
        let folder = build.fresh_folder(&format!("bench-update-{name}"))?;
        release(build, FIRST, programs, inputs, &folder.join(FIRST))?;
        release(build, SECOND, &build.programs, &build.build.join("inputs"), &folder.join(SECOND))?;
        build.disk(&folder.join(FIRST), &folder.join("disk.raw"))?;
        build.publish(&folder.join(SECOND), &folder.join("repository"))?;
        let server = Server::start(&folder.join("repository"))?;
        Ok(Self { folder, server })
    }

    fn install(&self, build: &Build) -> Result<Installed> {
        let disk = self.folder.join("machine.raw");
        run(Command::new("cp").arg("--sparse=always").arg(self.folder.join("disk.raw")).arg(&disk))?;
        let program = build.build.join("load/install_to_image");
        let output = Command::new(&program)
            .args([SECOND, "--image"])
            .arg(&disk)
            .arg("--running")
            .arg(self.folder.join(FIRST).join(format!("keel-cloud-{FIRST}.json")))
            .arg("--repository")
            .arg(format!("http://127.0.0.1:{}", self.server.port()))
            .arg("--root")
            .arg(build.build.join("keys/root.json"))
            .output()
            .with_context(|| format!("run {}: `make load` makes it", program.display()))?;
        if !output.status.success() {
            bail!("install_to_image: {}", String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).context("read what install_to_image prints")
    }

    /// Bytes of the second release's blocks that the first one hasn't.
    fn changed_bytes(&self) -> Result<u64> {
        let had: HashSet<Vec<u8>> = self.blocks(FIRST)?.into_iter().collect();
        let new: HashSet<Vec<u8>> = self.blocks(SECOND)?.into_iter().filter(|block| !had.contains(block)).collect();
        Ok((new.len() * BLOCK) as u64)
    }

    fn file(&self, version: &str, file: ReleaseFile) -> Result<PathBuf> {
        Ok(self.folder.join(version).join(file.target_name("cloud", &version.parse()?)))
    }

    /// What changes from one release to the next, for others to update.
    fn files(&self) -> Result<Vec<(&'static str, PathBuf, PathBuf)>> {
        let file = |name, file| Ok((name, self.file(FIRST, file)?, self.file(SECOND, file)?));
        [("root", ReleaseFile::Root), ("uki", ReleaseFile::Uki)].map(|(name, it)| file(name, it)).into_iter().collect()
    }

    fn blocks(&self, version: &str) -> Result<Vec<Vec<u8>>> {
        let mut blocks = Vec::new();
        for file in [ReleaseFile::Root, ReleaseFile::Uki] {
            let path = self.file(version, file)?;
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            blocks.extend(bytes.chunks(BLOCK).map(<[u8]>::to_vec));
        }
        Ok(blocks)
    }

    fn description(&self) -> Result<Release> {
        let path = self.folder.join(SECOND).join(format!("keel-cloud-{SECOND}.json"));
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

fn release(build: &Build, version: &str, programs: &Path, inputs: &Path, out: &Path) -> Result<()> {
    let mut command = build.keel_image();
    command.args(["release", "--version", version, "--programs"]).arg(programs).arg("--inputs").arg(inputs);
    run(command.arg("--out").arg(out))
}

/// Bytes fetched ÷ bytes changed, for each pair that can be made here.
pub fn ratios(build: &Build) -> Result<Vec<Figure>> {
    let (earlier_build, inputs) = (build.of_earlier_programs(), earlier::inputs(build)?);
    if let Err(error) = &earlier_build {
        eprintln!("{error}");
    }
    let programs = earlier_build.as_ref().ok().map(|build| build.programs.as_path());
    let (our_programs, our_inputs) = (build.programs.as_path(), build.build.join("inputs"));
    let pairs = [
        ("update_ratio_programs", "programs", programs, &our_inputs),
        ("update_ratio_kernel", "kernel", Some(our_programs), &inputs),
        ("update_ratio_all", "all", programs, &inputs),
    ];
    let mut figures = Vec::new();
    for (key, name, programs, inputs) in pairs {
        let Some(programs) = programs else { continue };
        let pair = Pair::new(build, name, programs, inputs)?;
        let (installed, changed) = (pair.install(build)?, pair.changed_bytes()?);
        let how = format!(
            "{} bytes fetched (root, UKI, tree, block list, description) ÷ {changed} bytes of 4 KiB blocks that the \
             earlier release hasn't; casync: indexes and compressed chunks, with the earlier files as seeds; rauc: a \
             bundle, fetched whole",
            installed.fetched_bytes
        );
        let ratio = |bytes: u64| bytes as f64 / changed.max(1) as f64;
        let mut figure = Figure::new(key, "", Some(1.15), &how, vec![ratio(installed.fetched_bytes)]);
        let update =
            Update { folder: build.fresh_folder(&format!("bench-update-{name}-peers"))?, files: pair.files()? };
        figure.peers.insert("casync".into(), ratio(update.casync()?));
        figure.peers.insert("rauc".into(), ratio(update.rauc(build)?));
        figures.push(figure);
    }
    Ok(figures)
}

/// Seconds of an install against a copy of as many bytes, and the peak of its memory.
pub fn write(build: &Build) -> Result<Vec<Figure>> {
    let pair = Pair::new(build, "write", &build.programs, &build.build.join("inputs"))?;
    let release = pair.description()?;
    let bytes = release.root_blocks * BLOCK as u64 + release.tree_bytes + release.uki_bytes;
    let (mut ratios, mut peaks) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let copy = format!("of={}", pair.folder.join("copy").display());
        let source = format!("if={}", pair.folder.join("machine.raw").display());
        let installed = pair.install(build)?;
        let begin = Instant::now();
        run(Command::new("dd").args([source, copy, format!("count={bytes}")]).args([
            "bs=1M",
            "conv=fsync",
            "iflag=count_bytes",
        ]))?;
        ratios.push(installed.seconds / begin.elapsed().as_secs_f64());
        peaks.push(installed.peak_kib as f64);
    }
    let how = "install of a release with equal programs into a disk image from a server on loopback, read-back \
               included, ÷ dd of root, tree and UKI with fsync; the updater's code, built as the host's programs are";
    let memory = "VmHWM of the process of that install, without the bus";
    Ok(vec![
        Figure::new("slot_write_vs_dd", "", Some(1.3), how, ratios),
        Figure::new("updater_peak_kib", "KiB", Some(49_152.0), memory, peaks),
    ])
}

/// States of the disk that were checked after each write of an update.
pub fn prefixes(build: &Build) -> Result<Vec<Figure>> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "-q", "-p", "keel-updater", "--test", "every_write", "--", "--nocapture"])
        .current_dir(&build.source)
        .output()
        .context("run the test every_write")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let number = |key: &str| -> Result<f64> {
        let after = text.split(key).nth(1).and_then(|rest| rest.split_whitespace().next());
        after.and_then(|word| word.parse().ok()).with_context(|| format!("every_write printed no {key}: {text}"))
    };
    let how = "updater/tests/every_write.rs: install, installs cut short, mark good, roll back, growth";
    let mut tried =
        Figure::new("write_prefixes_tried", "states", Some(5000.0), how, vec![number("write_prefixes_tried")?]);
    tried.at_least = true;
    Ok(vec![tried, Figure::new("write_prefixes_bad", "states", Some(0.0), how, vec![number("write_prefixes_bad")?])])
}
