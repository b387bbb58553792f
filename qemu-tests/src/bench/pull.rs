//! Pulls by Keel, Docker and Podman, in turn and in one guest, from a registry on the guest's loopback; and how soon an
//! image is mounted.
//!
//! The image is made of Debian's packages: five layers of some 40 MB, compressed with gzip as registries have them. A
//! second one has a tenth of its files changed, spread over all layers, so that no layer is the same.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::engines::{ENGINES, Guest};
use super::{Figure, median};
use crate::bare;
use crate::build::Build;
use crate::images;
use crate::packages;
use crate::registry::Registry;

/// What the image is made of, with what these need.
const PACKAGES: [&str; 5] = ["coreutils", "git", "python3", "nodejs", "vim"];
/// Layers of the image.
const LAYERS: usize = 5;
/// A layer takes packages until it has as many bytes.
const LAYER_BYTES: u64 = 40_000_000;
/// Of so many files one is changed in the second image.
const CHANGED_ONE_OF: usize = 10;
/// Pulls of each image by each engine; a round takes half an hour where instructions are counted.
const ROUNDS: usize = 1;
/// The registry in the guest.
const REGISTRY: &str = "127.0.0.1:5000";
/// Its configuration.
const REGISTRY_CONFIG: &str = "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n\
    storage: {filesystem: {rootdirectory: /content}, maintenance: {readonly: {enabled: true}}}\n\
    http: {addr: '127.0.0.1:5000'}\n";
/// For how long the registry may read its content and start.
const REGISTRY_LIMIT: Duration = Duration::from_secs(300);
/// Names of the engines' processes, in the order of [`ENGINES`].
const PROCESSES: [&str; 3] = ["runtime", "dockerd", "podman"];
/// Mounts that are timed.
const MOUNTS: &str = "200";

/// What each pull took, by engine and field.
type Samples = BTreeMap<&'static str, Vec<Value>>;

/// Time, memory and bytes written of pulls.
pub fn compare(build: &Build) -> Result<Vec<Figure>> {
    let dir = build.fresh_folder("bench-pull-images")?;
    let content = content(build, &dir)?;
    let config = format!("[registry]\ninsecure = [\"{REGISTRY}\"]\n");
    let guest = Guest::start_beside(build, "bench-pull", &config, &[registry_image(&dir)?])?;
    // All of its content into memory, so that the first pull isn't the only one that reads the disk.
    let serve = "find /content -type f -exec cat {} + >/dev/null; exec /bin/docker-registry serve /config.yml";
    guest.host.docker_ok(&["run", "-d", "--name=registry", "--network=host", "registry:1", "sh", "-c", serve])?;
    wait_registry(&guest)?;
    let (mut first, mut again) = (Samples::new(), Samples::new());
    for _ in 0..ROUNDS {
        for ((name, socket), process) in ENGINES.into_iter().zip(PROCESSES) {
            let load = |verb: &str, tag: &str| {
                let image = format!("{REGISTRY}/app:{tag}");
                let words = [verb, "--socket", socket, "--process", process, "--image", &image];
                let document = guest.load(&words).with_context(|| format!("{name}: {}", guest.peers_log()))?;
                eprintln!("{name} {verb} {tag}: {document}");
                Ok::<_, anyhow::Error>(document)
            };
            first.entry(name).or_default().push(load("pull", "1")?);
            again.entry(name).or_default().push(load("pull", "2")?);
            load("forget", "1")?;
            load("forget", "2")?;
        }
    }
    guest.off()?;
    figures(&first, &again, &content)
}

/// Waits until the registry answers.
fn wait_registry(guest: &Guest) -> Result<()> {
    let ask = ["exec", "registry", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:5000/v2/"];
    let begun = Instant::now();
    while let Err(error) = guest.host.docker_ok(&ask) {
        ensure!(begun.elapsed() < REGISTRY_LIMIT, "the guest's registry doesn't answer: {error:#}");
        std::thread::sleep(Duration::from_millis(500));
    }
    Ok(())
}

/// The figures of the first image, and of the one that shares its files.
fn figures(first: &Samples, again: &Samples, content: &str) -> Result<Vec<Figure>> {
    let peers = || ENGINES.iter().skip(1).map(|(name, _)| *name);
    let figure = |key, unit, goal, how: &str, samples: &Samples, field: &str| -> Result<Figure> {
        let mut figure = Figure::new(key, unit, goal, how, field_of(samples, "keel", field)?);
        figure.peers = peers()
            .map(|peer| Ok((peer.to_owned(), median(&field_of(samples, peer, field)?))))
            .collect::<Result<_>>()?;
        Ok(figure)
    };
    let ratio = |key, goal, how: &str, samples: &Samples, field: &str| -> Result<Figure> {
        let times = figure(key, "", goal, how, samples, field)?;
        let best = times.peers.values().copied().fold(f64::INFINITY, f64::min);
        let mut ratio = Figure::new(key, "", goal, how, times.samples.iter().map(|time| time / best).collect());
        ratio.peers = times.peers.into_iter().map(|(peer, time)| (peer, time / best)).collect();
        Ok(ratio)
    };
    let how = format!(
        "{content}, from docker-registry on the guest's loopback through the API; busy guest time of the whole machine, \
         registry included, a nanosecond an instruction, until the engine has answered; ÷ the faster peer's"
    );
    let time = "that time itself";
    let settled = "that time and that of a sync after it: Docker and Podman leave much in memory that Keel has written";
    let written = "bytes that reached the disk until that sync had ended";
    let memory = "VmHWM of the engine's own processes; helpers that unpack for Docker and Podman aren't counted";
    let shared = "the same for a second image, of whose files nine tenths are those of the first, in other layers";
    Ok(vec![
        ratio("pull_vs_best", Some(0.5), &how, first, "busyMs")?,
        figure("pull_ms", "ms", None, time, first, "busyMs")?,
        figure("pull_settled_ms", "ms", None, settled, first, "settledBusyMs")?,
        figure("pull_engine_cpu_s", "s", None, "processor time of the engine's processes", first, "cpuS")?,
        figure("pull_peak_kib", "KiB", Some(65_536.0), memory, first, "peakKib")?,
        figure("pull_written_kib", "KiB", None, written, first, "writtenKib")?,
        figure("pull_flushes", "", None, "flushes of the disk's cache meanwhile", first, "flushes")?,
        ratio("pull_shared_vs_best", None, shared, again, "busyMs")?,
        figure("pull_shared_ms", "ms", None, shared, again, "busyMs")?,
        figure("pull_shared_written_kib", "KiB", None, shared, again, "writtenKib")?,
    ])
}

fn field_of(samples: &Samples, engine: &str, field: &str) -> Result<Vec<f64>> {
    let documents = samples.get(engine).with_context(|| format!("no pull by {engine}"))?;
    documents.iter().map(|document| document[field].as_f64().with_context(|| format!("{field} of {engine}"))).collect()
}

/// Fills a registry on this machine with both images; returns what they are, in words.
fn content(build: &Build, dir: &Path) -> Result<String> {
    let packages = packages::fetch(&build.build.join("bench/content"), &PACKAGES, &[])?;
    let (roots, bytes) = layers(dir, &packages)?;
    let count: usize = roots.iter().map(|root| files(root).map(|files| files.len())).sum::<Result<usize>>()?;
    let registry = Registry::start(&dir.join("registry"))?;
    let push = |name: &str, tag: &str| -> Result<()> {
        let config = json!({ "Env": ["PATH=/usr/bin:/bin"], "Cmd": ["bash"] });
        let archive = images::pack_layers(dir, name, &roots, &config)?;
        registry.push(&archive, &format!("app:{tag}"))?;
        Ok(fs::remove_file(&archive)?)
    };
    push("app", "1")?;
    for root in &roots {
        for file in files(root)?.iter().step_by(CHANGED_ONE_OF) {
            File::options().append(true).open(file)?.write_all(b"changed\n")?;
        }
    }
    push("app-changed", "2")?;
    for root in &roots {
        fs::remove_dir_all(root)?;
    }
    Ok(format!("{} MB in {count} files and {LAYERS} layers", bytes / 1_000_000))
}

/// A folder for each layer; and how many bytes all their files have.
fn layers(dir: &Path, packages: &[PathBuf]) -> Result<(Vec<PathBuf>, u64)> {
    let (mut roots, mut total) = (Vec::new(), 0);
    let mut packages = packages.iter();
    for number in 0..LAYERS {
        let root = dir.join(format!("layer-{number}"));
        fs::create_dir_all(&root)?;
        let mut bytes = 0;
        while bytes < LAYER_BYTES {
            let package = packages.next().context("the packages don't suffice for the image")?;
            crate::packages::unpack(package, &root)?;
            bytes = files(&root)?.iter().map(|file| Ok(fs::metadata(file)?.len())).sum::<Result<u64>>()?;
        }
        total += bytes;
        roots.push(root);
    }
    Ok((roots, total))
}

/// All regular files below a folder, sorted.
fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut folders) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// An image of Debian's registry with that content.
fn registry_image(dir: &Path) -> Result<PathBuf> {
    let root = dir.join("registry-image");
    for folder in ["bin", "tmp", "etc"] {
        fs::create_dir_all(root.join(folder))?;
    }
    for (target, source) in bare::with_libraries(Path::new("/usr/bin/docker-registry"))? {
        let target = root.join(target.trim_start_matches('/'));
        fs::create_dir_all(target.parent().context("a file of an image has a folder")?)?;
        fs::copy(source, target)?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("copy /bin/busybox: is busybox-static installed?")?;
    for name in ["sh", "find", "cat", "wget"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name))?;
    }
    fs::write(root.join("config.yml"), REGISTRY_CONFIG)?;
    fs::rename(dir.join("registry/content"), root.join("content"))?;
    let image = images::pack(dir, "registry", &root, &json!({ "Env": ["PATH=/bin"] }))?;
    fs::remove_dir_all(&root)?;
    Ok(image)
}

/// Milliseconds from the order to a mounted root, on this machine.
pub fn mount(build: &Build) -> Result<Vec<Figure>> {
    let dir = build.fresh_folder("bench-mount")?;
    let archive = images::busybox(&dir, "web", "page\n")?;
    let output = Command::new(env!("CARGO"))
        .args(["run", "-q", "-p", "keel-store", "--example", "mount_time", "--"])
        .arg(&archive)
        .arg(dir.join("store"))
        .arg(MOUNTS)
        .current_dir(&build.source)
        .output()
        .context("run mount_time")?;
    ensure!(output.status.success(), "mount_time: {}", String::from_utf8_lossy(&output.stderr));
    let samples: Vec<f64> = serde_json::from_slice(&output.stdout).context("read what mount_time prints")?;
    let how = "an image's tree and its objects mounted for a new container with a user namespace of its own: erofs, ID \
               mapping, overlay, writable folders; the store's code as tests build it";
    Ok(vec![Figure::new("mount_image_ms", "ms", Some(2.0), how, samples)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_held_against_the_faster_peer() {
        let sample = |ms: f64| json!({ "busyMs": ms, "settledBusyMs": ms, "cpuS": 1.0, "peakKib": 9.0, "writtenKib": 7, "flushes": 1 });
        let samples: Samples = [("keel", 30.0), ("docker", 100.0), ("podman", 60.0)]
            .map(|(name, ms)| (name, vec![sample(ms), sample(ms)]))
            .into();
        let figures = figures(&samples, &samples, "200 MB").unwrap();
        let of = |key: &str| figures.iter().find(|figure| figure.key == key).unwrap();
        assert_eq!(of("pull_vs_best").samples, [0.5, 0.5]);
        assert_eq!(of("pull_ms").peers["docker"], 100.0);
        assert!(super::figures(&Samples::new(), &samples, "").is_err());
    }
}
