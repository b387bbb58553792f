//! A daemon on a state of its own, and the real `docker` client (`make deps` installs it) to drive it.
#![allow(dead_code, reason = "each test uses a part of it")]

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
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keel-runtime"))
            .args(["--standalone", "--state"])
            .arg(folder.path().join("state"))
            .arg("--socket")
            .arg(folder.path().join("api.sock"))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let daemon = Self { child, folder };
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(daemon.folder.path().join("api.sock")).is_err() {
            assert!(begun.elapsed() < START_LIMIT, "the daemon doesn't listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
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

/// An archive of a root with Debian's static busybox as its only program.
fn busybox(folder: &Path) -> PathBuf {
    let root = folder.join("root");
    std::fs::create_dir_all(root.join("bin")).unwrap();
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).expect("copy /bin/busybox: is busybox-static installed?");
    for name in ["sh", "cat", "seq", "sleep", "id", "tty", "test", "touch", "rm"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let archive = folder.join("root.tar");
    let status = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().unwrap();
    assert!(status.success());
    archive
}
