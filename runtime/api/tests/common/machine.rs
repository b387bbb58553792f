//! A machine for the daemon: a state, a network namespace, and a parent of containers that outlives it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::http::Api;
use super::parent::Parent;
use super::{busybox, wait_for_socket, wait_until};

/// Longest wait for the namespace.
const LIMIT: Duration = Duration::from_secs(20);

/// A machine: a state, a network namespace, and a parent of containers.
pub struct Machine {
    pub folder: tempfile::TempDir,
    namespace: Child,
    pub parent: Parent,
}

impl Machine {
    pub fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let parent = Parent::listen(&folder.path().join("control"));
        let namespace = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().expect("run unshare");
        wait_until("a network namespace", LIMIT, || {
            let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
            of(&namespace.id().to_string()) != of("self")
        });
        let machine = Self { folder, namespace, parent };
        machine.inside(&["ip", "link", "set", "lo", "up"]);
        machine
    }

    /// Runs a program in its network.
    pub fn inside(&self, words: &[&str]) -> String {
        let output = self.nsenter().args(words).output().expect("run nsenter");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    fn nsenter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.namespace.id()));
        command
    }

    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Starts a daemon and waits until it listens.
    pub fn daemon(&self) -> (Child, Api) {
        let socket = self.folder.path().join("api.sock");
        let child = self
            .nsenter()
            .arg(env!("CARGO_BIN_EXE_keel-runtime"))
            .args(["--standalone", "--network", "--state"])
            .arg(self.state())
            .arg("--socket")
            .arg(&socket)
            .arg("--control")
            .arg(self.folder.path().join("control"))
            .stdin(Stdio::null())
            .stderr(std::fs::OpenOptions::new().append(true).create(true).open(self.log()).unwrap())
            .spawn()
            .unwrap();
        self.parent.spare(child.id());
        wait_for_socket(&socket);
        (child, Api::new(&socket))
    }

    /// Gives a daemon the image `box:1`.
    pub fn import_busybox(&self, api: &Api) {
        let archive = std::fs::read(busybox(self.folder.path())).unwrap();
        let mut request = format!(
            "POST /images/create?fromSrc=-&repo=box&tag=1 HTTP/1.1\r\nHost: keel\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n",
            archive.len()
        )
        .into_bytes();
        request.extend(&archive);
        let answer = api.raw(&request).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    pub fn log(&self) -> PathBuf {
        self.folder.path().join("daemon.log")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.parent.kill_last();
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("audit")).collect();
            eprintln!("the daemons said, at the end:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
    }
}
