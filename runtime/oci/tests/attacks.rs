//! Ways out of containers that other runtimes had open, tried. Each test fails without what protects from it. Needs root.

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use common::bench::Bench;
use common::{Image, host_users, run, spec, try_create, wait};
use keel_oci::spec::{Mount, Process, Spec};
use keel_oci::{Create, Created, Error, Exec, Extras, Parent, create, exec_with};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

fn errno(error: &Error) -> Option<i32> {
    std::error::Error::source(error)?.downcast_ref::<std::io::Error>()?.raw_os_error()
}

/// CVE-2019-5736: while the runtime waits inside, its file is there to be opened.
#[test]
fn the_hosts_program_is_on_a_read_only_mount_for_a_container() {
    let image = Image::new();
    let (created, _reader) = try_create(&image, &host_users(spec("true"))).unwrap();
    let exe = format!("/proc/{}/exe", created.pid());
    assert!(File::open(&exe).is_ok(), "it is the runtime's program");
    let access = rustix::fs::accessat(CWD, &exe, Access::WRITE_OK, AtFlags::empty());
    assert_eq!(access, Err(rustix::io::Errno::ROFS));
}

/// CVE-2019-5736 as it was used: the file is kept by a descriptor until nobody executes it any more, and then opened again.
#[test]
fn a_descriptor_kept_of_the_hosts_program_is_no_way_to_write_it() {
    let image = Image::new();
    let program = image.0.path().join("runtime");
    // By another process: what other tests clone meanwhile would hold this one's descriptor of the copy for a moment, and
    // nobody can execute a file that somebody has open for writing.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_keel-oci")).arg(&program).status().unwrap();
    assert!(copied.success());
    let created = create(Create {
        id: "test",
        spec: &host_users(spec("true")),
        rootfs: image.mount().as_fd(),
        stdin: File::open("/dev/null").unwrap().into(),
        stdout: File::create("/dev/null").unwrap().into(),
        stderr: File::create("/dev/null").unwrap().into(),
        cgroup: None,
        parent: Parent::Caller,
        init: Some(&program),
    })
    .unwrap();
    let pidfd = created.pidfd().try_clone_to_owned().unwrap();
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let kept = rustix::fs::openat(CWD, format!("/proc/{}/exe", created.pid()), flags, Mode::empty()).unwrap();
    created.start().unwrap();
    wait(pidfd.as_fd());
    let again = format!("/proc/self/fd/{}", kept.as_raw_fd());
    let opened = File::options().write(true).open(&again).map(drop).map_err(|e| e.raw_os_error());
    assert_eq!(opened, Err(Some(libc::EROFS)));
}

/// A container that waits, and `exec` in it.
struct Running {
    spec: Spec,
    pidfd: OwnedFd,
    _image: Image,
}

impl Running {
    fn new() -> Self {
        let (image, spec) = (Image::new(), host_users(spec("echo; exec sleep 100")));
        let (created, mut reader) = try_create(&image, &spec).unwrap();
        let pidfd = created.pidfd().try_clone_to_owned().unwrap();
        created.start().unwrap();
        reader.read_exact(&mut [0]).unwrap();
        Self { spec, pidfd, _image: image }
    }

    fn exec(&self, cwd: &str, preserved: Vec<OwnedFd>) -> Result<Created, Error> {
        let null = || -> OwnedFd { File::options().read(true).write(true).open("/dev/null").unwrap().into() };
        let process = Process { cwd: cwd.into(), ..self.spec.process.clone() };
        let order = Exec {
            id: "test",
            spec: &self.spec,
            container: self.pidfd.as_fd(),
            process: &process,
            stdin: null(),
            stdout: null(),
            stderr: null(),
            cgroup: None,
            parent: Parent::Caller,
            init: Some(Path::new(env!("CARGO_BIN_EXE_keel-oci"))),
        };
        exec_with(order, Extras { preserved, ..Extras::default() })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        wait(self.pidfd.as_fd());
    }
}

/// CVE-2024-21626, first defence: a folder of the host that the runtime has open isn't open in its child.
#[test]
fn a_working_folder_by_a_descriptor_of_the_runtimes_is_not_there() {
    // A number that the child has no use for.
    let leaked = rustix::io::fcntl_dupfd_cloexec(File::open("/").unwrap(), 200).unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    let cwd = format!("/proc/self/fd/{}", leaked.as_raw_fd());
    let error = Running::new().exec(&cwd, Vec::new()).err().unwrap();
    assert_eq!(errno(&error), Some(libc::ENOENT), "{error}");
    // The first process's folder is made if it is absent, which must not lead through such a link, either.
    let mut s = host_users(spec("pwd"));
    s.process.cwd = cwd;
    let error = try_create(&Image::new(), &s).err().unwrap();
    assert_eq!(errno(&error), Some(libc::ENOENT), "{error}");
}

/// CVE-2024-21626, second defence: one that the child was given on purpose is still not entered.
#[test]
fn a_working_folder_outside_of_the_container_is_refused() {
    let given: OwnedFd = File::open("/").unwrap().into();
    let error = Running::new().exec("/proc/self/fd/3", vec![given]).err().unwrap();
    assert!(error.to_string().contains("outside of the container"), "{error}");
    assert_eq!(errno(&error), Some(libc::EPERM));
}

/// Paths of an image's own `/dev`, which nothing else is put into.
fn with_devices_of_its_own(image: &Image, mut spec: Spec) -> Spec {
    fs::create_dir(image.path("devices")).unwrap();
    fs::create_dir(image.path("devices/pts")).unwrap();
    spec.mounts.retain(|m| !m.destination.starts_with("/dev"));
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| Mount {
        destination: destination.into(),
        kind: Some(kind.into()),
        source: Some(source.into()),
        options: options.iter().map(|o| (*o).into()).collect(),
        ..Mount::default()
    };
    let devices = image.path("devices");
    spec.mounts.push(mount("/dev", "bind", devices.to_str().unwrap(), &["rbind"]));
    spec.mounts.push(mount("/dev/pts", "devpts", "devpts", &["newinstance", "ptmxmode=0666", "mode=0620"]));
    spec
}

/// CVE-2025-31133: what masks a file is the host's null device, whatever is in its place inside, or nothing is.
#[test]
fn a_null_device_of_the_images_masks_nothing() {
    for target in [Some("/etc/cover"), None] {
        let image = Image::new();
        fs::write(image.path("etc/secret"), "secret").unwrap();
        fs::write(image.path("etc/cover"), "cover").unwrap();
        let script = "cat /etc/secret; stat -c '%F %t:%T' /etc/secret; cat /etc/cover";
        let mut s = with_devices_of_its_own(&image, host_users(spec(script)));
        s.linux.masked_paths = vec!["/etc/secret".into()];
        if let Some(target) = target {
            symlink(target, image.path("devices/null")).unwrap();
        }
        assert_eq!(run(&image, &s).1, "character special file 1:3\ncover");
    }
}

/// Runs the command in a mount namespace of its own, in which `script` has changed something of the host.
fn on_a_changed_host(bench: &Bench, id: &str, spec: &Spec, script: &str) -> std::process::Output {
    bench.configure(spec);
    let inner = bench.command(&["run", "--bundle"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-e", "-c", &format!("{script}\nexec \"$@\""), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args()).arg(bench.dir.path()).arg(id);
    command.output().expect("these tests need util-linux")
}

/// CVE-2025-31133: a null device that isn't one masks nothing, not even the host's.
#[test]
fn a_null_device_that_is_none_is_refused() {
    let bench = Bench::new();
    fs::write(bench.dir.path().join("fake"), "fake").unwrap();
    let mut s = host_users(spec("true"));
    s.linux.masked_paths = vec!["/proc/interrupts".into()];
    let script = format!("mount --bind {}/fake /dev/null", bench.dir.path().display());
    let output = on_a_changed_host(&bench, "changed-null", &s, &script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("isn't the null device"), "{said}");
}

/// CVE-2025-52565: a terminal is bound on `/dev/console` itself, never where a link there leads.
#[test]
fn a_terminal_is_not_bound_where_a_link_leads() {
    for target in ["/etc/target", "/proc/sys/kernel/hostname", "/absent"] {
        let image = Image::new();
        fs::write(image.path("etc/target"), "").unwrap();
        let mut s = with_devices_of_its_own(&image, host_users(spec("true")));
        s.process.terminal = true;
        symlink(target, image.path("devices/console")).unwrap();
        let error = try_create(&image, &s).err().unwrap();
        assert!(error.to_string().contains("/dev/console"), "{error}");
        assert_eq!(errno(&error), Some(libc::ELOOP), "{error}");
        assert!(!image.path("absent").exists());
    }
}

/// CVE-2025-52881: parameters are written to the kernel's files, or not at all.
#[test]
fn a_parameter_is_not_written_to_what_is_mounted_over_it() {
    let bench = Bench::new();
    let mut s = host_users(spec("true"));
    s.linux.sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "7".into());
    let fake = bench.dir.path().join("fake");
    fs::create_dir_all(fake.join("ipv4")).unwrap();
    fs::write(fake.join("ipv4/ip_unprivileged_port_start"), "untouched").unwrap();
    let script = format!("mount --bind {} /proc/sys/net", fake.display());
    let output = on_a_changed_host(&bench, "changed-proc", &s, &script);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("set sysctl"), "{said}");
    assert_eq!(fs::read_to_string(fake.join("ipv4/ip_unprivileged_port_start")).unwrap(), "untouched");
}

/// CVE-2023-27561 and what came of it: the runtime's own proc must be where it thinks.
#[test]
fn proc_is_not_mounted_through_a_link_of_the_image() {
    let image = Image::new();
    fs::create_dir(image.path("elsewhere")).unwrap();
    symlink("elsewhere", image.path("proc")).unwrap();
    let error = try_create(&image, &host_users(spec("true"))).err().unwrap().to_string();
    assert!(error.contains("mount /proc"), "{error}");
}
