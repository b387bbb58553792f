//! Further processes in running containers, and terminals. Needs root.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use common::{Image, host_users, spec, wait};
use keel_oci::spec::{Capabilities, ConsoleSize, Process, Spec};
use keel_oci::{Create, Created, Error, Exec, Parent, create, exec};

/// A container that sleeps until it is dropped.
struct Running {
    pidfd: OwnedFd,
    spec: Spec,
    _image: Image,
}

impl Running {
    fn new(spec: Spec) -> Self {
        let image = Image::new();
        let (created, mut reader) = common::try_create(&image, &spec).unwrap();
        let pidfd = created.pidfd().try_clone_to_owned().unwrap();
        created.start().unwrap();
        let mut said = [0];
        reader.read_exact(&mut said).unwrap();
        Self { pidfd, spec, _image: image }
    }

    fn try_exec(&self, process: &Process) -> Result<(Created, std::io::PipeReader), Error> {
        let (reader, writer) = std::io::pipe().unwrap();
        let created = exec(Exec {
            id: "test",
            spec: &self.spec,
            container: self.pidfd.as_fd(),
            process,
            stdin: File::open("/dev/null").unwrap().into(),
            stdout: writer.try_clone().unwrap().into(),
            stderr: writer.into(),
            cgroup: None,
            parent: Parent::Caller,
            init: Some(Path::new(env!("CARGO_BIN_EXE_keel-oci"))),
        })?;
        Ok((created, reader))
    }

    /// Exit code and output.
    fn exec(&self, process: &Process) -> (i32, String) {
        let (created, mut reader) = self.try_exec(process).unwrap();
        let pidfd = created.pidfd().try_clone_to_owned().unwrap();
        created.start().unwrap();
        let mut out = String::new();
        reader.read_to_string(&mut out).unwrap();
        (wait(pidfd.as_fd()), out)
    }

    fn process(&self, script: &str) -> Process {
        let args = ["sh", "-c", script].map(String::from).to_vec();
        Process { args, ..self.spec.process.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        wait(self.pidfd.as_fd());
    }
}

const SLEEP: &str = "echo; sleep 1000";

#[test]
fn a_further_process_is_in_all_namespaces_of_the_first() {
    let running = Running::new(spec(SLEEP));
    let script = "for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; readlink /proc/1/ns/$n; done; \
        hostname; id -u; ls /proc/self/fd";
    let (code, out) = running.exec(&running.process(script));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(code, 0, "{out}");
    for pair in lines[..14].chunks(2) {
        assert_eq!(pair[0], pair[1], "{out}");
    }
    assert_eq!(&lines[14..16], ["box", "0"], "{out}");
    // 3 is the folder that ls reads.
    assert_eq!(&lines[16..], ["0", "1", "2", "3"], "{out}");
}

#[test]
fn a_further_process_has_credentials_limits_and_a_folder_of_its_own() {
    for spec in [spec(SLEEP), host_users(spec(SLEEP))] {
        let running = Running::new(spec);
        let mut process = running
            .process("id -u; id -g; pwd; echo $X; ulimit -n; grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status");
        process.user.uid = 7;
        process.user.gid = 8;
        process.cwd = "/tmp".into();
        process.env.push("X=y".into());
        process.no_new_privileges = true;
        process.rlimits = vec![keel_oci::spec::Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 99, soft: 98 }];
        let caps = vec!["CAP_KILL".to_owned()];
        process.capabilities = Some(Capabilities {
            bounding: caps.clone(),
            inheritable: caps.clone(),
            permitted: caps.clone(),
            effective: caps.clone(),
            ambient: caps,
        });
        let (code, out) = running.exec(&process);
        assert_eq!(code, 0, "{out}");
        assert_eq!(out.lines().take(5).collect::<Vec<_>>(), ["7", "8", "/tmp", "y", "98"]);
        assert!(out.contains("CapEff:\t0000000000000020") && out.contains("NoNewPrivs:\t1"), "{out}");
        assert!(out.contains("Seccomp:\t2"), "the container's filter applies: {out}");
    }
}

#[test]
fn errors_of_a_further_process_name_step_and_path() {
    let running = Running::new(spec(SLEEP));
    let mut process = running.process("");
    process.args = vec!["/missing".into()];
    let failed = running.try_exec(&process).and_then(|(created, _)| created.start()).unwrap_err();
    assert!(failed.is_program_missing() && failed.to_string().contains("/missing"), "{failed}");
    process.cwd = "/nowhere".into();
    let failed = running.try_exec(&process).err().unwrap();
    assert!(failed.to_string().contains("enter working folder /nowhere"), "{failed}");
}

#[test]
fn nothing_joins_a_container_that_has_ended() {
    let running = Running::new(spec(SLEEP));
    rustix::process::pidfd_send_signal(&running.pidfd, rustix::process::Signal::KILL).unwrap();
    rustix::event::poll(&mut [rustix::event::PollFd::new(&running.pidfd, rustix::event::PollFlags::IN)], None).unwrap();
    assert!(running.try_exec(&running.process("true")).is_err());
}

/// Reads a terminal until its other end is closed, which is an error there.
fn read_terminal(terminal: OwnedFd) -> String {
    let mut bytes = Vec::new();
    let _ = File::from(terminal).read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap().replace('\r', "")
}

const ABOUT_TERMINAL: &str = "tty; stty size; echo x >/dev/tty; readlink /proc/self/fd/2; stat -c %u $(tty)";

fn terminal(process: &mut Process) {
    process.terminal = true;
    process.console_size = Some(ConsoleSize { height: 33, width: 77 });
}

#[test]
fn a_first_process_has_a_terminal_of_its_own_devpts() {
    let image = Image::new();
    for mut spec in [spec(""), host_users(spec(""))] {
        let script = format!("{ABOUT_TERMINAL}; echo console >/dev/console; read line; echo got $line");
        spec.process.args = ["sh", "-c", &script].map(String::from).to_vec();
        spec.process.user.uid = 5;
        terminal(&mut spec.process);
        let null = || File::open("/dev/null").unwrap().into();
        let mut created = create(Create {
            id: "test",
            spec: &spec,
            rootfs: image.mount().as_fd(),
            stdin: null(),
            stdout: null(),
            stderr: null(),
            cgroup: None,
            parent: Parent::Caller,
            init: Some(Path::new(env!("CARGO_BIN_EXE_keel-oci"))),
        })
        .unwrap();
        let mut master = File::from(created.take_terminal().unwrap());
        let pidfd = created.pidfd().try_clone_to_owned().unwrap();
        created.start().unwrap();
        master.write_all(b"hello\n").unwrap();
        assert_eq!(wait(pidfd.as_fd()), 0);
        let out = read_terminal(master.into());
        let said: Vec<&str> = out.lines().filter(|l| *l != "hello").collect();
        assert_eq!(said, ["/dev/pts/0", "33 77", "x", "/dev/pts/0", "5", "console", "got hello"]);
    }
}

#[test]
fn a_further_process_has_a_terminal_in_the_containers_devpts() {
    let running = Running::new(spec(SLEEP));
    let mut process = running.process(ABOUT_TERMINAL);
    terminal(&mut process);
    let (mut created, _reader) = running.try_exec(&process).unwrap();
    let master = created.take_terminal().unwrap();
    let pidfd = created.pidfd().try_clone_to_owned().unwrap();
    created.start().unwrap();
    assert_eq!(wait(pidfd.as_fd()), 0);
    assert_eq!(read_terminal(master), "/dev/pts/0\n33 77\nx\n/dev/pts/0\n0\n");
}
