//! A daemon on a state of its own, and the real `docker` client (`make deps` installs it) to drive it.
#![allow(dead_code, reason = "each test uses a part of it")]

pub mod http;
pub mod machine;
pub mod parent;
pub mod registry;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for the daemon to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Longest time for one command; a client that hangs fails the test instead of stopping it.
const COMMAND_LIMIT: &str = "60";

pub struct Daemon {
    /// The daemon.
    pub child: Child,
    /// Its state and socket.
    pub folder: tempfile::TempDir,
}

impl Daemon {
    /// On tmpfs, because overlayfs doesn't take every file system for its upper layer.
    pub fn start() -> Self {
        Self::start_in(tempfile::tempdir_in("/dev/shm").unwrap(), "")
    }

    /// The same with a machine config, in a folder that may have been another's.
    pub fn start_in(folder: tempfile::TempDir, config: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_keel-runtime")), folder, config)
    }

    /// The same with its state on a disk of so many MiB, which nobody else sees.
    pub fn start_on_disk(mib: u32, config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        let mut command = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size={mib}m,mode=755 disk \"$0\" && exec \"$@\"");
        command.args(["--mount", "--", "sh", "-c", &script]).arg(folder.path().join("state"));
        command.arg(env!("CARGO_BIN_EXE_keel-runtime"));
        Self::start_by(command, folder, config)
    }

    fn start_by(mut command: Command, folder: tempfile::TempDir, config: &str) -> Self {
        std::fs::write(folder.path().join("keel.toml"), config).unwrap();
        let child = command
            .args(["--standalone", "--state"])
            .arg(folder.path().join("state"))
            .arg("--socket")
            .arg(folder.path().join("api.sock"))
            .arg("--config")
            .arg(folder.path().join("keel.toml"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self { child, folder };
        wait_for_socket(&daemon.folder.path().join("api.sock"));
        daemon
    }

    /// Ends the daemon and starts it anew on the same state, with another machine config.
    pub fn restart(mut self, config: &str) -> Self {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        let folder = std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap());
        Self::start_in(folder, config)
    }

    /// Bytes that are free on the disk of its state, as it sees it.
    pub fn free_bytes(&self) -> u64 {
        let state = self.folder.path().join("state");
        let seen = format!("/proc/{}/root{}", self.child.id(), state.display());
        let disk = rustix::fs::statvfs(seen).unwrap();
        disk.f_bavail * disk.f_frsize
    }

    /// The API's socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("api.sock")
    }

    pub fn docker(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("timeout")
            .args(["--signal=KILL", COMMAND_LIMIT, "docker", "-H"])
            .arg(format!("unix://{}", self.folder.path().join("api.sock").display()))
            .args(arguments)
            .env("DOCKER_CONFIG", self.folder.path())
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run timeout and docker: see `make deps`");
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let feeding = std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
        let output = child.wait_with_output().unwrap();
        feeding.join().unwrap();
        output
    }

    pub fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.docker(&[&["run", "--rm", "--network", "none"], arguments].concat(), input)
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments, b"");
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub fn import_busybox(&self) {
        let archive = busybox(self.folder.path());
        self.ok(&["import", archive.to_str().unwrap(), "box:1"]);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until somebody listens.
pub fn wait_for_socket(path: &Path) {
    wait_until("the daemon to listen", START_LIMIT, || std::os::unix::net::UnixStream::connect(path).is_ok());
}

/// Waits for a condition.
pub fn wait_until(what: &str, limit: Duration, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < limit, "waited for {what} in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An archive of a root with Debian's static busybox as its only program.
pub fn busybox(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("copy /bin/busybox: is busybox-static installed?");
    for name in ["sh", "cat", "seq", "sleep", "usleep", "id", "tty", "test", "touch", "rm", "ps", "ls", "mkdir"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let archive = folder.join("root.tar");
    let status = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().unwrap();
    assert!(status.success());
    archive
}
