//! The daemon, driven by the real `docker` client (`make deps` installs it) on a state of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Longest wait for the daemon to listen.
const START_LIMIT: Duration = Duration::from_secs(20);
/// Longest time for one command; a client that hangs fails the test instead of stopping it.
const COMMAND_LIMIT: &str = "60";

struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// On tmpfs, because overlayfs doesn't take every file system for its upper layer.
    fn start() -> Self {
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

    fn docker(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new("timeout")
            .args(["--signal=KILL", COMMAND_LIMIT, "docker", "-H"])
            .arg(format!("unix://{}", self.folder.path().join("api.sock").display()))
            .args(arguments)
            .env("DOCKER_CONFIG", self.folder.path())
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

    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.docker(&[&["run", "--rm", "--network", "none"], arguments].concat(), input)
    }

    fn ok(&self, arguments: &[&str]) -> String {
        let output = self.docker(arguments, b"");
        assert!(output.status.success(), "docker {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn import_busybox(&self) {
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
    for name in ["sh", "cat", "seq", "sleep"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let archive = folder.join("root.tar");
    let status = Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&root).arg(".").status().unwrap();
    assert!(status.success());
    archive
}

#[test]
fn streams_and_exit_codes_come_through_whole() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let output = daemon.run(&["box:1", "sh", "-c", "echo out; echo err >&2; exit 7"], b"");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let output = daemon.run(&["box:1", "seq", "1", "100000"], b"");
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 100_000);
    // More than one file of the log holds: the client must get it all the same, also after the removal that `--rm` asks for.
    let input: Vec<u8> = (0..12_u32 << 20).map(|index| (index % 251) as u8).collect();
    let output = daemon.run(&["-i", "box:1", "cat"], &input);
    assert!(output.status.success() && output.stdout == input, "{} bytes came back", output.stdout.len());
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_start_that_fails_ends_run_with_the_right_code_and_is_removed() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    for (program, code) in [("/bin/not-there", 127), ("/etc/hosts", 126)] {
        let output = daemon.run(&["box:1", program], b"");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(program), "{output:?}");
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_containers_life_as_the_client_sees_it() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let id = daemon.ok(&["run", "-d", "--name", "one", "--network", "none", "box:1", "sh", "-c", "echo a; sleep 99"]);
    assert_eq!(daemon.ok(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]), format!("{id} one"));
    daemon.ok(&["kill", "one"]);
    assert_eq!(daemon.ok(&["wait", "one"]), "137");
    assert_eq!(daemon.ok(&["logs", "--tail", "1", "one"]), "a");
    daemon.ok(&["rm", "one"]);
    daemon.ok(&["rmi", "box:1"]);
    assert_eq!(daemon.ok(&["images", "-q"]), "");
    let refused = daemon.docker(&["commit", "one"], b"");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not serve"), "{refused:?}");
}
