//! Container engines of Debian's that are told to use our OCI runtime, unchanged: Podman with `--runtime`, containerd with
//! `--runc-binary`, Docker with `--default-runtime`. Each leads a container through its life, on folders of its own,
//! without network.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long an engine may take to be there.
const READY: Duration = Duration::from_secs(30);
/// Between two looks.
const STEP: Duration = Duration::from_millis(20);
/// The container's program: its shell ends by SIGTERM.
const SLEEP: [&str; 3] = ["sh", "-c", "trap 'exit 3' TERM; echo begun; while :; do sleep 0.1; done"];

/// Tries all three; returns a line for each thing that was seen to work.
pub fn try_all(runtime: &Path, dir: &Path) -> Result<Vec<String>> {
    let _ = fs::remove_dir_all(dir);
    fs::create_dir_all(dir)?;
    let rootfs = rootfs(dir)?;
    let mut done = podman(runtime, dir, &rootfs).context("podman")?;
    done.extend(containerd(runtime, dir, &rootfs).context("containerd")?);
    done.extend(docker(runtime, dir, &rootfs).context("docker")?);
    Ok(done)
}

/// busybox as an image.
fn rootfs(dir: &Path) -> Result<PathBuf> {
    let rootfs = dir.join("rootfs");
    for folder in ["bin", "dev", "etc", "proc", "run", "sys", "tmp"] {
        fs::create_dir_all(rootfs.join(folder))?;
    }
    let busybox = "/usr/bin/busybox";
    fs::copy(busybox, rootfs.join("bin/busybox")).context("copy busybox: is the package busybox-static installed?")?;
    for name in ["sh", "cat", "echo", "id", "ls", "sleep", "true", "false", "tty", "stat"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(name))?;
    }
    fs::write(rootfs.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    Ok(rootfs)
}

/// A program and the words that each of its calls begins with.
struct Client {
    program: &'static str,
    words: Vec<String>,
    variables: Vec<(String, String)>,
    done: Vec<String>,
}

impl Client {
    fn call(&self, words: &[&str]) -> Result<(i32, String)> {
        let mut command = Command::new(self.program);
        command.args(&self.words).args(words).envs(self.variables.iter().cloned()).stdin(Stdio::null());
        let package = if self.program == "ctr" { "containerd" } else { self.program };
        let output = command.output().with_context(|| {
            format!("run {}: is the package {package} installed? `make deps` does it", self.program)
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok((output.status.code().unwrap_or(-1), text))
    }

    /// Must end with this code and print this; what was seen is noted.
    fn see(&mut self, words: &[&str], code: i32, printed: &str) -> Result<String> {
        let (got, text) = self.call(words)?;
        let shown = words.iter().take(3).copied().collect::<Vec<_>>().join(" ");
        ensure!(got == code && text.contains(printed), "`{shown}`: expected {code} and {printed:?}, got {got}: {text}");
        self.done.push(format!("{} {shown}: {code}", self.program));
        Ok(text)
    }

    /// Calls until it prints this.
    fn until(&mut self, words: &[&str], printed: &str) -> Result<()> {
        let begun = Instant::now();
        loop {
            let (_, text) = self.call(words)?;
            if text.contains(printed) {
                return Ok(());
            }
            ensure!(begun.elapsed() < READY, "`{}` doesn't print {printed:?}: {text}", words.join(" "));
            std::thread::sleep(STEP);
        }
    }
}

fn podman(runtime: &Path, dir: &Path, rootfs: &Path) -> Result<Vec<String>> {
    let path = |name: &str| dir.join(name).display().to_string();
    // What Podman knows of runtimes by their names it must be told of this one.
    let config = format!(
        "[engine]\nruntime_supports_json = [\"keel-oci\"]\nruntime_supports_nocgroup = [\"keel-oci\"]\n\
         events_logger = \"file\"\n[engine.runtimes]\nkeel-oci = [\"{}\"]\n",
        runtime.display()
    );
    fs::write(path("containers.conf"), config)?;
    let words = ["--root", &path("podman"), "--runroot", &path("podman-run"), "--tmpdir", &path("podman-tmp")];
    let mut words: Vec<String> = words.map(str::to_owned).to_vec();
    words.extend(["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--runtime=keel-oci"].map(str::to_owned));
    let variables = vec![("CONTAINERS_CONF".to_owned(), path("containers.conf"))];
    let mut podman = Client { program: "podman", words, variables, done: Vec::new() };
    let image = rootfs.display().to_string();
    // Podman's own limits may be more than this machine allows, and that of processes needs cgroup v2.
    let limits = ["--pids-limit=0", "--ulimit=nofile=1000:1000", "--ulimit=nproc=1000:1000"];
    let place = [&limits[..], &["--network=none", "--rootfs", image.as_str()]].concat();
    let run = |first: &[&str], last: &[&str]| -> Vec<String> {
        [first, &place[..], last].concat().into_iter().map(str::to_owned).collect()
    };
    let life = |podman: &mut Client| -> Result<()> {
        let mut see = |first: &[&str], last: &[&str], code, printed: &str| {
            let words: Vec<String> = run(first, last);
            podman.see(&words.iter().map(String::as_str).collect::<Vec<_>>(), code, printed).map(drop)
        };
        see(&["run", "--rm"], &["sh", "-c", "id -u; exit 5"], 5, "0")?;
        see(&["run", "--rm"], &["no-such-program"], 127, "no-such-program")?;
        see(&["run", "--rm", "--read-only", "--user=7:8"], &["id"], 0, "uid=7")?;
        see(&["run", "--rm", "--tty"], &["tty"], 0, "/dev/")?;
        see(
            &["run", "--rm", "--uidmap=0:100000:1000", "--gidmap=0:100000:1000"],
            &["cat", "/proc/self/uid_map"],
            0,
            "100000",
        )?;
        see(&["run", "--rm", "--cgroups=disabled"], &["true"], 0, "")?;
        see(&["run", "-d", "--name=lives"], &SLEEP, 0, "")?;
        podman.until(&["logs", "lives"], "begun")?;
        podman.see(&["exec", "lives", "echo", "inside"], 0, "inside")?;
        podman.see(&["exec", "lives", "sh", "-c", "exit 9"], 9, "")?;
        podman.see(&["exec", "-t", "lives", "tty"], 0, "/dev/")?;
        podman.see(&["exec", "lives", "no-such-program"], 127, "no-such-program")?;
        podman.see(&["top", "lives"], 0, "PID")?;
        podman.see(&["inspect", "--format={{.State.Status}} {{.OCIRuntime}}", "lives"], 0, "running keel-oci")?;
        pause(podman)?;
        podman.see(&["stop", "lives"], 0, "lives")?;
        podman.see(&["inspect", "--format={{.State.Status}} {{.State.ExitCode}}", "lives"], 0, "exited 3")?;
        podman.see(&["start", "lives"], 0, "lives")?;
        podman.see(&["kill", "--signal=KILL", "lives"], 0, "lives")?;
        podman.see(&["rm", "-f", "lives"], 0, "")?;
        podman.see(&["ps", "-a", "-q"], 0, "").and_then(|left| {
            ensure!(left.trim().is_empty(), "containers are left: {left}");
            Ok(())
        })
    };
    let lived = life(&mut podman);
    let _ = podman.call(&["rm", "-f", "-a", "-t", "0"]);
    lived.map(|()| podman.done)
}

/// Podman freezes through the runtime, which needs cgroup v2 in some place.
fn pause(podman: &mut Client) -> Result<()> {
    podman.see(&["pause", "lives"], 0, "")?;
    podman.see(&["inspect", "--format={{.State.Status}}", "lives"], 0, "paused")?;
    podman.see(&["unpause", "lives"], 0, "")?;
    podman.see(&["inspect", "--format={{.State.Status}}", "lives"], 0, "running").map(drop)
}

/// An engine's daemon, asked to end when dropped: it may have further ones to end.
struct Daemon(Child);

impl Daemon {
    /// Starts it; what it says goes to a file. `package`: of which it is.
    fn start(command: &mut Command, log: &Path, package: &str) -> Result<Self> {
        let log = File::create(log)?;
        let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let missing =
            || format!("run {:?}: is the package {package} installed? `make deps` does it", command.get_program());
        child.with_context(missing).map(Self)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.0.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < READY && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(STEP);
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an engine did, or why not, with the end of its daemon's log.
fn told(lived: Result<()>, done: Vec<String>, log: &Path) -> Result<Vec<String>> {
    match lived {
        Ok(()) => Ok(done),
        Err(error) => {
            bail!("{error:#}\n{}", crate::machine::tail(&fs::read_to_string(log).unwrap_or_default()))
        }
    }
}

fn containerd(runtime: &Path, dir: &Path, rootfs: &Path) -> Result<Vec<String>> {
    let path = |name: &str| dir.join(name).display().to_string();
    // Without the plugins that want a network, a systemd or block devices.
    let config = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.snapshotter.v1.btrfs\", \
                  \"io.containerd.snapshotter.v1.zfs\", \"io.containerd.snapshotter.v1.devmapper\"]\n";
    fs::write(path("containerd.toml"), config)?;
    let log = dir.join("containerd.log");
    let mut command = Command::new("containerd");
    command.args(["--config", &path("containerd.toml"), "--address", &path("containerd.sock")]);
    command.args(["--root", &path("containerd"), "--state", &path("containerd-state")]);
    let _daemon = Daemon::start(&mut command, &log, "containerd")?;
    let words = ["--address", &path("containerd.sock")].map(str::to_owned).to_vec();
    let mut ctr = Client { program: "ctr", words, variables: Vec::new(), done: Vec::new() };
    ctr.until(&["version"], "Server")
        .with_context(|| fs::read_to_string(path("containerd.log")).unwrap_or_default())?;
    let (binary, image) = (runtime.display().to_string(), rootfs.display().to_string());
    let place = ["--runc-binary", binary.as_str(), "--rootfs", image.as_str()];
    let run = |first: &[&str], last: &[&str]| -> Vec<String> {
        [first, &place[..], last].concat().into_iter().map(str::to_owned).collect()
    };
    let life = |ctr: &mut Client| -> Result<()> {
        let mut see = |words: Vec<String>, code, printed: &str| {
            ctr.see(&words.iter().map(String::as_str).collect::<Vec<_>>(), code, printed).map(drop)
        };
        see(run(&["run", "--rm"], &["once", "sh", "-c", "id -u; exit 5"]), 5, "0")?;
        see(run(&["run", "--rm"], &["missing", "no-such-program"]), 1, "no-such-program")?;
        see(run(&["run", "-d"], &["lives", SLEEP[0], SLEEP[1], SLEEP[2]]), 0, "")?;
        ctr.see(&["task", "ls"], 0, "RUNNING")?;
        ctr.see(&["task", "exec", "--exec-id=one", "lives", "echo", "inside"], 0, "inside")?;
        ctr.see(&["task", "ps", "lives"], 0, "PID")?;
        ctr.see(&["task", "pause", "lives"], 0, "")?;
        ctr.see(&["task", "ls"], 0, "PAUSED")?;
        ctr.see(&["task", "resume", "lives"], 0, "")?;
        ctr.see(&["task", "kill", "lives"], 0, "")?;
        ctr.until(&["task", "ls"], "STOPPED")?;
        ctr.see(&["task", "rm", "lives"], 0, "exit code 3")?;
        ctr.see(&["container", "rm", "lives"], 0, "").map(drop)
    };
    let lived = life(&mut ctr);
    if lived.is_err() {
        let _ = ctr.call(&["task", "kill", "-s", "KILL", "lives"]);
        let _ = ctr.call(&["task", "rm", "-f", "lives"]);
        let _ = ctr.call(&["container", "rm", "lives"]);
    }
    told(lived, ctr.done, &log)
}

/// In namespaces of its own, so that it touches neither the machine's mounts nor its network.
fn docker(runtime: &Path, dir: &Path, rootfs: &Path) -> Result<Vec<String>> {
    let path = |name: &str| dir.join(name).display().to_string();
    let (socket, log) = (format!("unix://{}", path("docker.sock")), dir.join("dockerd.log"));
    let mut command = Command::new("unshare");
    // Not in PATH for everybody.
    command.args([
        "--mount",
        "--net",
        "env",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "dockerd",
    ]);
    command.args(["--add-runtime", &format!("keel-oci={}", runtime.display()), "--default-runtime=keel-oci"]);
    command.args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--storage-driver=vfs"]);
    command.args([
        "--data-root",
        &path("docker"),
        "--exec-root",
        &path("docker-run"),
        "--pidfile",
        &path("docker.pid"),
    ]);
    let _daemon = Daemon::start(command.args(["--host", &socket]), &log, "docker.io")?;
    let words = ["--host", &socket].map(str::to_owned).to_vec();
    let variables = vec![("DOCKER_CONFIG".to_owned(), path("docker-config"))];
    let mut docker = Client { program: "docker", words, variables, done: Vec::new() };
    let lived = docker.until(&["version"], "Server").and_then(|()| docker_life(&mut docker, dir, rootfs));
    told(lived, docker.done, &log)
}

fn docker_life(docker: &mut Client, dir: &Path, rootfs: &Path) -> Result<()> {
    let archive = dir.join("rootfs.tar").display().to_string();
    let packed = Command::new("tar").arg("-C").arg(rootfs).args(["-cf", &archive, "."]).status().context("run tar")?;
    ensure!(packed.success(), "tar failed");
    docker.see(&["import", &archive, "box"], 0, "sha256:")?;
    let run = |options: &[&'static str], command: &[&'static str]| {
        [&["run", "--network=none"], options, &["box"], command].concat()
    };
    for (options, command, code, printed) in [
        (&["--rm"][..], &["sh", "-c", "id -u; exit 5"][..], 5, "0"),
        (&["--rm"], &["no-such-program"], 127, "no-such-program"),
        (&["--rm", "--read-only", "--user=7:8"], &["id"], 0, "uid=7"),
        (&["--rm", "--tty"], &["tty"], 0, "/dev/"),
        (&["--rm", "--init"], &["cat", "/proc/1/comm"], 0, "docker-init"),
        (&["--rm", "--privileged"], &["ls", "/dev/ptmx"], 0, "/dev/ptmx"),
        (&["--rm", "--volume=kept:/kept"], &["sh", "-c", "echo kept >/kept/file"], 0, ""),
        (&["--rm", "--volume=kept:/kept"], &["cat", "/kept/file"], 0, "kept"),
        (&["--detach", "--name=lives"], &SLEEP, 0, ""),
    ] {
        docker.see(&run(options, command), code, printed)?;
    }
    docker.until(&["logs", "lives"], "begun")?;
    docker.see(&["inspect", "--format={{.State.Status}} {{.HostConfig.Runtime}}", "lives"], 0, "running keel-oci")?;
    docker.see(&["exec", "lives", "echo", "inside"], 0, "inside")?;
    docker.see(&["exec", "lives", "sh", "-c", "exit 9"], 9, "")?;
    docker.see(&["exec", "-t", "lives", "tty"], 0, "/dev/")?;
    docker.see(&["top", "lives"], 0, "PID")?;
    docker.see(&["pause", "lives"], 0, "")?;
    docker.see(&["inspect", "--format={{.State.Status}}", "lives"], 0, "paused")?;
    docker.see(&["unpause", "lives"], 0, "")?;
    docker.see(&["restart", "lives"], 0, "")?;
    docker.see(&["stop", "lives"], 0, "lives")?;
    docker.see(&["inspect", "--format={{.State.Status}} {{.State.ExitCode}}", "lives"], 0, "exited 3")?;
    docker.see(&["start", "lives"], 0, "lives")?;
    docker.see(&["rm", "-f", "lives"], 0, "")?;
    let left = docker.see(&["ps", "-a", "-q"], 0, "")?;
    ensure!(left.trim().is_empty(), "containers are left: {left}");
    Ok(())
}
