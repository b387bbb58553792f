//! What a container must not reach, and what a failed creation must not leave. Needs root.

mod common;

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Image, host_users, spec, try_create};
use keel_oci::spec::{Device, Hook, Hooks, Mount, Spec};

/// The class of CVE-2019-5736: while the runtime waits inside, its file is there to be opened.
#[test]
fn the_hosts_program_cannot_be_written_through_a_container() {
    let image = Image::new();
    let (created, _reader) = try_create(&image, &host_users(spec("true"))).unwrap();
    let exe = format!("/proc/{}/exe", created.pid());
    assert!(std::fs::File::open(&exe).is_ok(), "it is the runtime's program");
    // Opening it for writing fails with ETXTBSY as long as it is executed. What protects it after that is the mount,
    // which access(2) asks about.
    let access =
        rustix::fs::accessat(rustix::fs::CWD, &exe, rustix::fs::Access::WRITE_OK, rustix::fs::AtFlags::empty());
    assert_eq!(access, Err(rustix::io::Errno::ROFS));
}

/// The class of CVE-2023-27561 and what came of it: the runtime's own proc must be where it thinks.
#[test]
fn proc_is_not_mounted_through_a_link_of_the_image() {
    let image = Image::new();
    std::fs::create_dir(image.path("elsewhere")).unwrap();
    symlink("elsewhere", image.path("proc")).unwrap();
    let error = try_create(&image, &host_users(spec("true"))).err().unwrap().to_string();
    assert!(error.contains("mount /proc"), "{error}");
}

/// A bundle that `keel-oci` is run on, with all that it might leave behind.
struct Bench {
    image: Image,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { image: Image::new(), dir: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn call(&self, spec: &Spec, verb: &[&str]) -> std::process::Output {
        let mut spec = spec.clone();
        spec.oci_version = "1.2.0".into();
        spec.root.get_or_insert_default().path = self.image.path("").to_str().unwrap().into();
        std::fs::write(self.dir.path().join("config.json"), serde_json::to_vec(&spec).unwrap()).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_keel-oci"));
        command.arg("--root").arg(self.root()).args(verb).arg("--bundle").arg(self.dir.path());
        command.output().unwrap()
    }
}

/// Processes of the runtime and mounts that have to do with a folder.
fn left_over(bench: &Bench, id: &str) -> Vec<String> {
    let mut out: Vec<String> =
        std::fs::read_dir(bench.root()).into_iter().flatten().flatten().map(|e| format!("{e:?}")).collect();
    let image = bench.image.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    out.extend(mounts.lines().filter(|l| l.contains(&image)).map(str::to_owned));
    for cgroup in ["/sys/fs/cgroup/keel-oci", "/sys/fs/cgroup/unified/keel-oci"] {
        let cgroup = Path::new(cgroup).join(id);
        out.extend(cgroup.exists().then(|| cgroup.display().to_string()));
    }
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environ = entry.path().join("mountinfo");
        // Whoever is set up inside sees the image as a mount's root.
        let inside = std::fs::read_to_string(environ).is_ok_and(|text| text.contains(&format!(" {image} / ")));
        out.extend(inside.then(|| format!("{entry:?}")));
    }
    out
}

#[test]
fn a_creation_that_fails_leaves_nothing_whatever_step_it_was() {
    let bench = Bench::new();
    let base = || host_users(spec("true"));
    let mut cases: Vec<(&str, Spec)> = Vec::new();
    let mut add = |name, change: &dyn Fn(&mut Spec)| {
        let mut spec = base();
        change(&mut spec);
        cases.push((name, spec));
    };
    let bind = |source: &str| Mount {
        destination: "/tmp".into(),
        kind: Some("bind".into()),
        source: Some(source.into()),
        options: vec!["rbind".into()],
        ..Mount::default()
    };
    let hook = |path: &str| vec![Hook { path: path.into(), ..Hook::default() }];
    add("process.args", &|s| s.process.args.clear());
    add("bind mount /not/there", &|s| s.mounts.push(bind("/not/there")));
    add("mount /tmp", &|s| {
        s.mounts.push(Mount { kind: Some("no-such-type".into()), options: vec![], ..bind("none") });
    });
    add("make /dev/bad", &|s| {
        s.linux.devices.push(Device { path: "/dev/bad/".into(), kind: "c".into(), major: -1, ..Device::default() });
        s.linux.devices.push(Device { path: "/dev/bad".into(), kind: "p".into(), ..Device::default() });
        s.linux.devices.push(Device { path: "/dev/bad".into(), kind: "p".into(), ..Device::default() });
    });
    add("set sysctl", &|s| {
        s.linux.sysctl.insert("net.no_such_name".into(), "1".into());
    });
    add("prestart hook /bin/false", &|s| {
        s.hooks = Some(Hooks { prestart: hook("/bin/false"), ..Hooks::default() });
    });
    add("createContainer hook /bin/false", &|s| {
        s.hooks = Some(Hooks { create_container: hook("/bin/false"), ..Hooks::default() });
    });
    add("enter working folder /bin/busybox", &|s| s.process.cwd = "/bin/busybox".into());
    add("/missing", &|s| s.process.args = vec!["/missing".into()]);
    for (name, spec) in cases {
        let output = bench.call(&spec, &["create", "failing"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{name}");
        let step = name.rsplit('/').next().unwrap_or(name);
        assert!(said.contains(name) || said.contains(step), "{name} isn't named: {said}");
        assert_eq!(left_over(&bench, "failing"), Vec::<String>::new(), "after {name}");
    }
}

#[test]
fn a_container_is_created_started_and_deleted_by_different_processes() {
    let bench = Bench::new();
    let spec = host_users(spec("echo started >/tmp/mark"));
    let call = |verb: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keel-oci"));
        command.arg("--root").arg(bench.root()).args(verb).output().unwrap()
    };
    // Its streams are those of the creation, which must not wait for it.
    let mut with_null = spec.clone();
    with_null.process.args = ["sh", "-c", "echo started >/tmp/mark; exec sleep 100"].map(String::from).to_vec();
    with_null.process.user.uid = 0;
    let created = bench.call_detached(&with_null, &["create", "whole"]);
    assert!(created.success());
    assert!(!bench.image.path("tmp/mark").exists(), "the program must not have run");
    let status = || {
        let state: serde_json::Value = serde_json::from_slice(&call(&["state", "whole"]).stdout).unwrap();
        state["status"].as_str().unwrap().to_owned()
    };
    assert_eq!(status(), "created");
    assert!(!bench.call(&with_null, &["create", "whole"]).status.success(), "the ID is taken");
    assert!(call(&["start", "whole"]).status.success());
    assert_eq!(status(), "running");
    assert!(!call(&["start", "whole"]).status.success(), "it is started already");
    assert!(!call(&["delete", "whole"]).status.success(), "it runs");
    assert!(call(&["delete", "--force", "whole"]).status.success());
    assert!(!call(&["state", "whole"]).status.success());
    assert_eq!(left_over(&bench, "whole"), Vec::<String>::new());
}

impl Bench {
    fn call_detached(&self, spec: &Spec, verb: &[&str]) -> std::process::ExitStatus {
        // Writes the configuration, too; a version is asked for so that nothing else happens.
        let _ = self.call(spec, &["--version"]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_keel-oci"));
        command.arg("--root").arg(self.root()).args(verb).arg("--bundle").arg(self.dir.path());
        let null = std::process::Stdio::null;
        command.stdin(null()).stdout(null()).stderr(null()).status().unwrap()
    }
}
