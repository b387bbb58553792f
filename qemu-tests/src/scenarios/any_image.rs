//! The power fails while images are pulled, built and committed.
//!
//! As in [`super::any_write`], QEMU records what reaches the disk. Of states that a power cut may leave, the file system
//! is mended as a mount does and a daemon is started on what is in it: each image that it has is whole, layer by layer,
//! and none is missing whose making a client was told of before. Some states are really booted, and what their images
//! hold is read under the kernel's eyes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keel_spec::disk::STATE_LABEL;
use serde_json::Value;

use super::any_write::{asked_or, check_file_system, cut_out, in_state, now_s, open};
use super::containers::with_registry;
use super::fixture::{BOOT_LIMIT, Fixture};
use crate::build::{Build, DISK_BYTES, FIRST, sha256_hex};
use crate::clients::Host;
use crate::images;
use crate::machine::Hardware;
use crate::writes::{Random, Recording, State};

/// States that are looked at from outside unless asked otherwise, and those that are booted.
const DEFAULT_LOOKED_AT: u64 = 16;
const BOOTED: u64 = 2;
/// Bytes of a layer that can't be compressed, and are told from others.
const NOISE_BYTES: usize = 3 << 20;
/// Longest wait for the daemon to listen.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);

/// What was recorded, and where clients were told that an image is there.
struct Recorded {
    recording: Recording,
    /// The first boot was healthy here.
    from: usize,
    told: Vec<(usize, String)>,
    before: PathBuf,
}

pub(super) fn any_image(build: &Build) -> Result<()> {
    let seed = asked_or("KEEL_SEED", now_s())?;
    let looked_at = asked_or("KEEL_LOOKED_AT", DEFAULT_LOOKED_AT)?;
    println!("        KEEL_SEED={seed} KEEL_LOOKED_AT={looked_at}");
    let (fixture, registry, web) = with_registry(build, "power-cut-images")?;
    let noisy = noisy(&fixture.dir, seed)?;
    registry.push(&noisy, "noisy:1")?;
    let (fixture, recorded) = record(build, fixture, &web.replace("web:1", "noisy:1"))?;
    let mut random = Random::new(seed);
    let end = recorded.recording.ops.len();
    let mut images = 0;
    for number in 0..looked_at {
        let state = recorded.recording.choose(recorded.from, end, &mut random);
        let found = look(build, &fixture, &recorded, &state);
        images += found.with_context(|| format!("KEEL_SEED={seed}, state {number}: {state:?}"))?;
    }
    println!("        {looked_at} states looked at, {images} images whole");
    for number in 0..BOOTED {
        let state = recorded.recording.choose(recorded.from, end, &mut random);
        let names = boot(build, &fixture, &recorded, &state);
        let names = names.with_context(|| format!("KEEL_SEED={seed}, boot {number}: {state:?}"))?;
        println!("        booted {state:?} with {names:?}");
    }
    Ok(())
}

/// An archive of an image `noisy:1` with a layer of noise upon busybox.
fn noisy(dir: &Path, seed: u64) -> Result<PathBuf> {
    let (low, high) = (dir.join("noisy-low"), dir.join("noisy-high"));
    for folder in ["bin", "tmp", "proc", "dev", "sys", "etc"] {
        fs::create_dir_all(low.join(folder))?;
    }
    fs::create_dir_all(&high)?;
    fs::copy("/bin/busybox", low.join("bin/busybox")).context("copy /bin/busybox: is busybox-static installed?")?;
    std::os::unix::fs::symlink("busybox", low.join("bin/sh"))?;
    let mut random = Random::new(seed);
    for (name, bytes) in [("noise", NOISE_BYTES), ("more", 100_000), ("less", 700)] {
        let noise: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
        fs::write(high.join(name), noise)?;
    }
    images::pack_layers(dir, "noisy", &[low, high], &serde_json::json!({ "Env": ["PATH=/bin"] }))
}

/// A first boot, then a pull, a build and a commit, and the orderly end.
fn record(build: &Build, mut fixture: Fixture, noisy: &str) -> Result<(Fixture, Recorded)> {
    let before = build.build.join("tests/releases").join(format!("{FIRST}.raw"));
    let log = fixture.dir.join("writes.log");
    fixture.hardware.recording = Some(log.clone());
    let (mut machine, host) = fixture.boot()?;
    let so_far = || Ok::<_, anyhow::Error>(Recording::read(&log)?.ops.len());
    let (from, mut told) = (so_far()?, Vec::new());
    host.docker_ok(&["pull", noisy])?;
    told.push((so_far()?, noisy.to_owned()));
    let context = fixture.dir.join("context");
    fs::create_dir_all(&context)?;
    let dockerfile =
        format!("FROM {noisy}\nCOPY Dockerfile /made-of\nRUN busybox head -c 900000 /dev/urandom >/made\n");
    fs::write(context.join("Dockerfile"), dockerfile)?;
    let mut command = host.docker(&["build", "--network", "none", "-t", "built:1"]);
    let output = command.arg(&context).env("DOCKER_BUILDKIT", "0").output().context("run docker build")?;
    ensure!(output.status.success(), "docker build: {}", String::from_utf8_lossy(&output.stderr));
    told.push((so_far()?, "built:1".to_owned()));
    let script = "busybox head -c 500000 /dev/urandom >/own; busybox rm /less";
    host.docker_ok(&["run", "--name", "one", "--network", "none", noisy, "sh", "-c", script])?;
    host.docker_ok(&["commit", "one", "committed:1"])?;
    told.push((so_far()?, "committed:1".to_owned()));
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(120))?;
    let mut recording = Recording::read(&log)?;
    let (table, _) = Hardware::table_of(&before)?;
    recording.blocks_from = table.by_name(STATE_LABEL).context("partition state")?.offset_bytes();
    println!("        {} requests, {} of them up to the first boot", recording.ops.len(), from);
    Ok((fixture, Recorded { recording, from, told, before }))
}

/// Whether all is there that clients were told of.
fn none_is_missing(recorded: &Recorded, state: &State, names: &[String]) -> Result<()> {
    for (at, name) in recorded.told.iter().filter(|(at, _)| *at <= state.upto) {
        ensure!(names.contains(name), "{name} was there at {at}, and is lost: {names:?}");
    }
    Ok(())
}

/// Looks at a state from outside; how many images it has, all whole.
fn look(build: &Build, fixture: &Fixture, recorded: &Recorded, state: &State) -> Result<usize> {
    let dir = fixture.dir.join("looked-at");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir)?;
    let (disk, alone) = (dir.join("disk.raw"), dir.join("state.ext4"));
    in_state(&recorded.before, &recorded.recording, state, &disk)?;
    cut_out(&disk, recorded.recording.blocks_from, &alone)?;
    fs::remove_file(&disk)?;
    check_file_system(&alone)?;
    let taken = dir.join("taken");
    fs::create_dir(&taken)?;
    let order = format!("rdump /lib/keel/runtime {}", taken.display());
    let output = Command::new("/usr/sbin/debugfs").args(["-R", &order]).arg(&alone).output();
    let output = output.context("run debugfs: is the package e2fsprogs installed?")?;
    ensure!(output.status.success(), "debugfs: {}", String::from_utf8_lossy(&output.stderr));
    fs::remove_file(&alone)?;
    let daemon = Daemon::start(build, &dir, &taken.join("runtime"))?;
    let (ids, names) = (daemon.lines(&["images", "-aq", "--no-trunc"])?, daemon.names()?);
    none_is_missing(recorded, state, &names)?;
    for id in &ids {
        daemon.is_whole(id, &dir.join("saved")).with_context(|| format!("image {id} of {names:?}"))?;
    }
    drop(daemon);
    fs::remove_dir_all(&dir)?;
    Ok(ids.len())
}

/// The runtime's daemon on a folder, ended when dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    fn start(build: &Build, dir: &Path, state: &Path) -> Result<Self> {
        // By its name, which tells the one program what to be.
        let program = dir.join("runtime");
        std::os::unix::fs::symlink(build.programs.join("keel"), &program)?;
        let (socket, log) = (dir.join("api.sock"), dir.join("daemon.log"));
        let messages = fs::File::create(&log)?;
        let mut command = Command::new(program);
        command.args(["--standalone", "--state"]).arg(state).arg("--socket").arg(&socket);
        let child = command.stdin(Stdio::null()).stdout(messages.try_clone()?).stderr(messages).spawn()?;
        let daemon = Self { child, socket, log };
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(&daemon.socket).is_err() {
            ensure!(begun.elapsed() < LISTEN_LIMIT, "the daemon doesn't listen: {}", daemon.said());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    fn said(&self) -> String {
        crate::machine::tail(&fs::read_to_string(&self.log).unwrap_or_default())
    }

    fn docker(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new("docker");
        command.args(["--host", &format!("unix://{}", self.socket.display())]).args(words);
        let output = command.stdin(Stdio::null()).output().context("run docker")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "docker {words:?}: {errors}\n{}", self.said());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn lines(&self, words: &[&str]) -> Result<Vec<String>> {
        Ok(self.docker(words)?.lines().map(str::to_owned).collect())
    }

    fn names(&self) -> Result<Vec<String>> {
        self.lines(&["images", "--format", "{{.Repository}}:{{.Tag}}"])
    }

    /// Each layer of an image has the digest that its config tells.
    fn is_whole(&self, id: &str, into: &Path) -> Result<()> {
        let _ = fs::remove_dir_all(into);
        fs::create_dir_all(into)?;
        let archive = into.join("image.tar");
        self.docker(&["save", "-o", &archive.display().to_string(), id])?;
        let unpacked = Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(into).status().context("run tar")?;
        ensure!(unpacked.success(), "the saved archive can't be unpacked");
        let json = |name: &str| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(into.join(name))?)?) };
        let manifest = &json("manifest.json")?[0];
        let config = json(manifest["Config"].as_str().context("a config")?)?;
        let layers = manifest["Layers"].as_array().context("layers")?;
        let told = config["rootfs"]["diff_ids"].as_array().context("diff IDs")?;
        ensure!(layers.len() == told.len() && !told.is_empty(), "{} layers for {} digests", layers.len(), told.len());
        for (layer, told) in layers.iter().zip(told) {
            let bytes = fs::read(into.join(layer.as_str().context("a layer's name")?))?;
            ensure!(*told == format!("sha256:{}", sha256_hex(&bytes)), "layer {layer} hasn't the digest {told}");
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Boots a state: all of each image can be read, and nothing is to complain of.
fn boot(build: &Build, fixture: &Fixture, recorded: &Recorded, state: &State) -> Result<Vec<String>> {
    let dir = fixture.dir.join("booted");
    let _ = fs::remove_dir_all(&dir);
    let mut hardware = Hardware::with_disk(build, &dir, &recorded.before, DISK_BYTES)?;
    hardware.config.clone_from(&fixture.hardware.config);
    recorded.recording.apply(state, &open(&hardware.disk())?)?;
    let mut machine = hardware.power_on()?;
    let host = Host::of(build, &machine)?;
    let status = host.wait_health(&machine, "good", BOOT_LIMIT)?;
    ensure!(status["problems"].as_array().is_some_and(Vec::is_empty), "problems: {status}");
    let listed = host.docker_ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
    let names: Vec<String> = listed.lines().map(str::to_owned).collect();
    none_is_missing(recorded, state, &names)?;
    let script = "busybox find / -xdev -type f -exec busybox cat {} + >/dev/null && echo all";
    for id in host.docker_ok(&["images", "-aq"])?.lines() {
        let read = host.docker_ok(&["run", "--rm", "--network", "none", id, "sh", "-c", script])?;
        ensure!(read == "all", "{id} of {names:?}: {read}");
    }
    host.keelctl_ok(&["poweroff"])?;
    machine.wait_off(Duration::from_secs(120))?;
    fs::remove_dir_all(dir)?;
    Ok(names)
}
