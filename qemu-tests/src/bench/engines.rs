//! Keel's engine beside Docker's and Podman's, in one guest: the same kernel, processor, memory and client.
//!
//! The guest is a Keel host. Docker and Podman, from Debian's packages, run in a privileged container on it, with their
//! images and containers on the host's state file system, and see the machine's own kernel; what is left out of the
//! comparison is nothing but the unpacking of that container. The client (`qemu-tests/load`) calls each engine's socket.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Figure, median};
use crate::build::Build;
use crate::clients::Host;
use crate::images;
use crate::machine::{Clock, Machine};
use crate::packages;
use crate::scenarios::Fixture;

/// Packages of the peers; what they need comes along.
const PACKAGES: [&str; 5] = ["docker.io", "podman", "netavark", "iptables", "kmod"];
/// Packages that the peers' dependencies name and an engine doesn't use.
const WITHOUT: [&str; 8] = ["gnupg", "gpg", "dirmngr", "perl", "dpkg", "tar_", "debconf", "adduser"];
/// Folders that an engine doesn't read.
const UNREAD: [&str; 5] =
    ["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/bash-completion"];
/// The peers' image and container.
const PEERS: &str = "peers";
/// MiB of the guest's memory.
pub(super) const MEMORY_MIB: u32 = 2048;
/// Measured in turn this often.
pub(super) const BATCHES: usize = 5;
/// Rounds of each turn.
const ROUNDS: &str = "4";
/// Containers that are left to sleep.
const IDLE: &str = "50";
/// Containers in a list.
const LISTED: &str = "500";
/// Calls that are timed.
const CALLS: &str = "50";
/// The same of Podman, whose list takes it many seconds in such a guest.
const FEW_CALLS: &str = "3";
/// The engines: name, and socket as the client's container has it.
pub(super) const ENGINES: [(&str, &str); 3] =
    [("keel", "/keel.sock"), ("docker", "/sockets/docker.sock"), ("podman", "/sockets/podman.sock")];

/// Those beside which Keel's is measured.
pub(super) const PEER_ENGINES: [&str; 2] = ["docker", "podman"];

/// Podman's list of registries: one on loopback is spoken to without TLS, as Docker does by itself.
const REGISTRIES: &str = "[[registry]]\nlocation = \"127.0.0.1:5000\"\ninsecure = true\n";

/// Starts those daemons that `ENGINES` names, and again whenever one ends: at once if it was killed. Processes of the control
/// group's root go into one below it first, or no controller could be handed on (cgroup v2, "no internal processes").
const START: &str = "\
trap exit TERM
again() { while :; do \"$@\" & wait $! || [ $? -gt 128 ] || busybox sleep 1; done; }
serve_podman() {
    busybox rm -f /sockets/podman.sock
    exec podman --root /data/podman system service --time=0 unix:///sockets/podman.sock
}
serve_docker() { exec dockerd $DOCKERD_OPTIONS --data-root /data/docker -H unix:///sockets/docker.sock; }
mkdir -p /sys/fs/cgroup/daemons /run/lock /var/run /tmp
for pid in $(cat /sys/fs/cgroup/cgroup.procs); do echo $pid >/sys/fs/cgroup/daemons/cgroup.procs; done
for name in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$name >/sys/fs/cgroup/cgroup.subtree_control; done
/usr/sbin/modprobe -a xt_MASQUERADE xt_addrtype xt_conntrack xt_comment nft_compat
for engine in $ENGINES; do again serve_$engine & done
wait
";

/// Times of `run` and `exec`.
pub fn compare(build: &Build) -> Result<Vec<Figure>> {
    let guest = Guest::start(build, "bench-engines", Clock::Instructions)?;
    let mut all = Vec::new();
    for (figure, verb, network) in [("run", "run", "none"), ("run_network", "run", "bridge"), ("exec", "exec", "none")]
    {
        all.push((figure, guest.times(verb, network)?));
    }
    guest.off()?;
    Ok(ratios(&all))
}

/// Memory of idle containers, a list of many, and calls one after the other. By the real clock: making so many containers
/// with Docker and Podman takes hours where instructions are counted.
pub fn crowds(build: &Build) -> Result<Vec<Figure>> {
    let guest = Guest::start(build, "bench-crowds", Clock::Real)?;
    let mut idle = Vec::new();
    for (name, socket) in ENGINES {
        let words = ["idle", "--socket", socket, "--count", IDLE, "--network", "none"];
        idle.extend(of_engine(name, guest.load(&words))?.map(|document| (name, document)));
        eprintln!("idle: {:?}", idle.last());
    }
    let (mut lists, mut looks): (Samples, Samples) = (Vec::new(), Vec::new());
    for (name, socket) in ENGINES {
        let rounds = if name == "podman" { FEW_CALLS } else { CALLS };
        let words = ["list", "--socket", socket, "--count", LISTED, "--network", "none", "--rounds", rounds];
        let Some(document) = of_engine(name, guest.load(&words))? else { continue };
        let of = |what: &str| -> Result<Vec<f64>> {
            let times = document[what]["wallMs"].as_array().with_context(|| format!("{what} of {name}"))?;
            Ok(times.iter().filter_map(Value::as_f64).collect())
        };
        eprintln!("{name}: list {:.2} ms, look {:.2} ms", median(&of("list")?), median(&of("look")?));
        lists.push((name, of("list")?));
        looks.push((name, of("look")?.into_iter().map(|ms| 1000.0 / ms).collect()));
    }
    guest.off()?;
    let how = format!(
        "a list of {LISTED} containers that never ran, a connection each, {CALLS} times ({FEW_CALLS} of Podman's); guest's clock"
    );
    let rate = "looks at one among them (`inspect`), one after the other, a connection each";
    Ok(vec![
        overhead(&idle)?,
        beside("ps_500_ms", "ms", &how, &lists).context("Keel's lists")?,
        beside("api_calls_per_s", "1/s", rate, &looks).context("Keel's looks")?,
    ])
}

/// Our samples with the peers' medians beside them; `None` without ours.
fn beside(key: &'static str, unit: &'static str, how: &str, all: &Samples) -> Option<Figure> {
    let ours = times(all, "keel");
    let mut figure = (!ours.is_empty()).then(|| Figure::new(key, unit, None, how, ours.to_vec()))?;
    let peers = PEER_ENGINES.into_iter().filter(|peer| !times(all, peer).is_empty());
    figure.peers = peers.map(|peer| (peer.to_owned(), median(times(all, peer)))).collect();
    Some(figure)
}

/// A container's life through the engine beside the same by the OCI runtime alone; both in guests that count
/// instructions, without the time in which they wait: such a guest's clock leaps then.
pub fn beside_oci(build: &Build) -> Result<Vec<Figure>> {
    let alone = super::oci::guest_run_ms()?;
    let guest = Guest::start_alone(build, "bench-engine-oci")?;
    let mut samples = Vec::new();
    for _ in 0..BATCHES {
        let words = ["run", "--socket", "/keel.sock", "--rounds", "10", "--network", "none"];
        let engine = guest.load(&words)?["busyMs"].as_f64().context("busyMs")?;
        eprintln!("engine {engine:.2} ms, the runtime alone {alone:.2} ms");
        samples.push(engine / alone);
    }
    guest.off()?;
    let how = "create, start, wait, remove of `true` without network through the API ÷ create, start, wait, delete by \
               keel-oci alone on a minimal bundle; busy guest time";
    Ok(vec![Figure::new("engine_vs_oci", "", Some(1.5), how, samples)])
}

/// A peer's socket as the client's container has it.
pub(super) fn socket(peer: &str) -> String {
    format!("/sockets/{peer}.sock")
}

/// What was measured of an engine. A peer that can't be measured is absent, with the reason said; ours must work.
pub(super) fn of_engine(name: &str, measured: Result<Value>) -> Result<Option<Value>> {
    match measured {
        Err(error) if name != "keel" => {
            eprintln!("{name} is left out: {error:#}");
            Ok(None)
        }
        measured => measured.map(Some),
    }
}

/// Milliseconds by engine.
type Samples = Vec<(&'static str, Vec<f64>)>;

/// Ours divided by the median of each peer; and the times themselves.
fn ratios(all: &[(&str, Samples)]) -> Vec<Figure> {
    let how = "create, start, wait, remove of `true` through the API without network; busy guest time, a nanosecond an \
               instruction; ours divided by theirs";
    let exec_how = "`exec` of `true` through the API, likewise";
    let mut figures = Vec::new();
    let mut ratio = |key, of: &str, peer: &str, goal, how: &str| {
        let Some((_, samples)) = all.iter().find(|(figure, _)| *figure == of) else { return };
        let (theirs, ours) = (times(samples, peer), times(samples, "keel"));
        if theirs.is_empty() {
            return;
        }
        let theirs = median(theirs);
        figures.push(Figure::new(key, "", goal, how, ours.iter().map(|time| time / theirs).collect()));
    };
    ratio("run_vs_docker", "run", "docker", Some(0.2), how);
    ratio("run_vs_podman", "run", "podman", Some(0.2), how);
    let with_network = "the same with a network of the default kind, an address of its own and masquerading";
    ratio("run_network_vs_docker", "run_network", "docker", Some(0.2), with_network);
    ratio("run_network_vs_podman", "run_network", "podman", Some(0.2), with_network);
    ratio("exec_vs_docker", "exec", "docker", Some(0.2), exec_how);
    ratio("exec_vs_podman", "exec", "podman", None, exec_how);
    for (key, of) in [("run_ms", "run"), ("run_network_ms", "run_network"), ("engine_exec_ms", "exec")] {
        let Some((_, samples)) = all.iter().find(|(figure, _)| *figure == of) else { continue };
        let how = format!("the time itself, mean of {ROUNDS} rounds a sample");
        figures.extend(beside(key, "ms", &how, samples));
    }
    figures
}

/// An engine's times; none if it has none.
fn times<'a>(samples: &'a Samples, engine: &str) -> &'a [f64] {
    samples.iter().find(|(name, _)| *name == engine).map_or(&[], |(_, times)| times)
}

fn overhead(idle: &[(&str, Value)]) -> Result<Figure> {
    let of = |document: &Value| document["overheadKib"].as_f64().context("overheadKib");
    let ours = idle.first().context("Keel's own")?;
    let how = "memory of the machine that 50 idle containers without network took, for each, less what their processes \
               would have without a container (proportional set, page tables, stack in the kernel)";
    let mut figure = Figure::new("container_overhead_kib", "KiB", Some(300.0), how, vec![of(&ours.1)?]);
    figure.peers =
        idle.iter().skip(1).map(|(name, document)| Ok(((*name).to_owned(), of(document)?))).collect::<Result<_>>()?;
    Ok(figure)
}

/// A Keel host with the peers on it.
pub(super) struct Guest {
    machine: Machine,
    pub(super) host: Host,
}

impl Guest {
    /// With both peers, which answer.
    fn start(build: &Build, name: &str, clock: Clock) -> Result<Self> {
        let guest = Self::start_for_peers(build, name, clock)?;
        guest.start_peers("default", "", &PEER_ENGINES)?;
        PEER_ENGINES.iter().try_for_each(|peer| guest.give_image(peer))?;
        Ok(guest)
    }

    /// With both peers installed, none of which has been started.
    pub(super) fn start_for_peers(build: &Build, name: &str, clock: Clock) -> Result<Self> {
        Self::prepare(build, name, clock, &packages(build)?, "", &[])
    }

    /// Loads the containers' image into a peer.
    pub(super) fn give_image(&self, peer: &str) -> Result<()> {
        let loaded = self.load(&["load", "--socket", &socket(peer), "--file", "/web.tar"]);
        of_engine(peer, loaded.with_context(|| self.peers_log())).map(drop)
    }

    /// The engines' times of a verb, measured in turn. One that fails takes no further turn.
    fn times(&self, verb: &str, network: &str) -> Result<Samples> {
        let mut samples: Samples = ENGINES.iter().map(|(name, _)| (*name, Vec::new())).collect();
        let mut failed = HashSet::new();
        for _ in 0..BATCHES {
            for ((name, socket), (_, times)) in ENGINES.iter().zip(&mut samples) {
                if failed.contains(name) {
                    continue;
                }
                // Podman keeps "bridge" for its own default network under another name.
                let network = if *name == "podman" && network == "bridge" { "podman" } else { network };
                let words = [verb, "--socket", socket, "--rounds", ROUNDS, "--network", network];
                match of_engine(name, self.load(&words))? {
                    Some(document) => times.push(document["busyMs"].as_f64().context("busyMs")?),
                    None => _ = failed.insert(name),
                }
            }
            eprintln!("{verb} {network}: {samples:.1?}");
        }
        Ok(samples)
    }

    /// With both peers in the host's network, and further images; lines of machine config.
    pub(super) fn start_beside(build: &Build, name: &str, config: &str, images: &[PathBuf]) -> Result<Self> {
        let guest = Self::prepare(build, name, Clock::Instructions, &packages(build)?, config, images)?;
        // The host's network has a firewall of its own.
        guest.start_peers("host", "--iptables=false --bridge=none", &PEER_ENGINES)?;
        Ok(guest)
    }

    /// Starts these peers, and waits until they answer.
    pub(super) fn start_peers(&self, network: &str, dockerd_options: &str, peers: &[&str]) -> Result<()> {
        let (network, options) = (format!("--network={network}"), format!("DOCKERD_OPTIONS={dockerd_options}"));
        let engines = format!("ENGINES={}", peers.join(" "));
        let run = ["run", "-d", "--name", PEERS, "--privileged", &network, "-e", &options, "-e", &engines];
        let mounts = ["-v", "sockets:/sockets", "-v", "data:/data", "-v", "/usr/lib/modules:/usr/lib/modules:ro"];
        let command = ["peers:1", "/usr/bin/busybox", "sh", "-c", START];
        self.host.docker_ok(&[&run[..], &mounts, &command].concat())?;
        for peer in peers {
            let words = ["ready", "--socket", &socket(peer), "--seconds", "300"];
            self.load(&words).with_context(|| self.peers_log())?;
        }
        Ok(())
    }

    /// Ends the peers, with all that they run.
    pub(super) fn end_peers(&self) -> Result<()> {
        self.host.docker_ok(&["rm", "-f", PEERS]).map(drop)
    }

    /// With the client alone.
    pub(super) fn start_alone(build: &Build, name: &str) -> Result<Self> {
        Self::prepare(build, name, Clock::Instructions, &[], "", &[])
    }

    /// First boot by the real clock, in which the images are loaded; then, where they are counted, one in which an
    /// instruction is a nanosecond.
    fn prepare(
        build: &Build,
        name: &str,
        clock: Clock,
        packages: &[PathBuf],
        config: &str,
        more: &[PathBuf],
    ) -> Result<Self> {
        let mut fixture = Fixture::new(build, name)?;
        fixture.add_config(config);
        fixture.hardware.memory_mib = MEMORY_MIB;
        let web = images::busybox(&fixture.dir, "web", "page\n")?;
        let client = client_image(build, &fixture.dir, &web)?;
        let mut archives = vec![web, client];
        if !packages.is_empty() {
            archives.push(peers_image(&fixture.dir, packages)?);
        }
        let (mut machine, host) = fixture.boot()?;
        for archive in archives.iter().chain(more) {
            host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
        }
        if clock == Clock::Real {
            return Ok(Self { machine, host });
        }
        host.keelctl_ok(&["poweroff"])?;
        machine.wait_off(Duration::from_secs(120))?;
        fixture.hardware.clock = clock;
        let (machine, host) = fixture.boot()?;
        Ok(Self { machine, host })
    }

    /// Runs the client to its end in a container that sees the host's processes; what it printed.
    pub(super) fn load(&self, words: &[&str]) -> Result<Value> {
        let text = self.host.docker_ok(&[&CLIENT[..], words].concat())?;
        serde_json::from_str(&text).with_context(|| format!("keel-load {words:?} printed {text:?}"))
    }

    pub(super) fn peers_log(&self) -> String {
        self.log_of(PEERS)
    }

    /// What a container said last on its standard error.
    pub(super) fn log_of(&self, container: &str) -> String {
        let shown = self.host.docker(&["logs", "--tail", "40", container]).output();
        shown.map_or_else(|error| error.to_string(), |output| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(super) fn off(mut self) -> Result<()> {
        self.host.keelctl_ok(&["poweroff"])?;
        self.machine.wait_off(Duration::from_secs(300))
    }
}

/// A container of the client's.
pub(super) const CLIENT: [&str; 11] = [
    "run",
    "--rm",
    "--privileged",
    "--pid=host",
    "--network=none",
    "-v",
    "sockets:/sockets",
    "-v",
    "/run/keel/api.sock:/keel.sock",
    "load:1",
    "/keel-load",
];

/// The peers' packages and what they need, in `build/bench/packages/`.
fn packages(build: &Build) -> Result<Vec<PathBuf>> {
    packages::fetch(&build.build.join("bench/packages"), &PACKAGES, &WITHOUT)
}

/// An image with the client, and an image that it loads into the engines.
fn client_image(build: &Build, dir: &Path, web: &Path) -> Result<PathBuf> {
    let root = dir.join("client");
    fs::create_dir_all(&root)?;
    let client = build.build.join("load/keel-load");
    fs::copy(&client, root.join("keel-load")).with_context(|| format!("copy {}: run `make load`", client.display()))?;
    fs::copy(web, root.join("web.tar"))?;
    images::pack(dir, "load", &root, &json!({}))
}

/// An image with these packages.
fn peers_image(dir: &Path, packages: &[PathBuf]) -> Result<PathBuf> {
    let root = dir.join("peers");
    for folder in
        ["usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "etc/containers", "proc", "sys", "dev", "run", "tmp", "var/tmp"]
    {
        fs::create_dir_all(root.join(folder))?;
    }
    for name in ["bin", "sbin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{name}"), root.join(name))?;
    }
    for package in packages {
        packages::unpack(package, &root)?;
    }
    for folder in UNREAD {
        let _ = fs::remove_dir_all(root.join(folder));
    }
    fs::copy("/bin/busybox", root.join("usr/bin/busybox"))
        .context("copy /bin/busybox: is busybox-static installed?")?;
    for name in ["mkdir", "cat", "echo", "sh"] {
        let link = root.join("usr/bin").join(name);
        if !link.exists() {
            std::os::unix::fs::symlink("busybox", link)?;
        }
    }
    // Links that the package's own script would make.
    for name in ["iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore"] {
        std::os::unix::fs::symlink("xtables-nft-multi", root.join("usr/sbin").join(name))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/containers/policy.json"), r#"{"default":[{"type":"insecureAcceptAnything"}]}"#)?;
    fs::write(root.join("etc/containers/registries.conf"), REGISTRIES)?;
    let config = json!({ "Env": ["PATH=/usr/sbin:/usr/bin"] });
    let image = images::pack(dir, PEERS, &root, &config)?;
    fs::remove_dir_all(&root)?;
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_to_the_median_of_the_peer() {
        let samples =
            vec![("keel", vec![10.0, 30.0, 20.0]), ("docker", vec![100.0, 400.0, 200.0]), ("podman", vec![50.0])];
        let figures = ratios(&[("run", samples)]);
        let of = |key: &str| figures.iter().find(|figure| figure.key == key);
        assert_eq!(of("run_vs_docker").unwrap().samples, [0.05, 0.15, 0.1]);
        assert_eq!(of("run_vs_podman").unwrap().value, 0.4);
        assert_eq!(of("run_ms").unwrap().peers["docker"], 200.0);
        assert!(of("exec_vs_docker").is_none());
    }
}
