//! As a user other than root, and in a user namespace that somebody else has made. Needs root, to become that user.

mod common;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use common::bench::{Bench, left_over};
use common::spec;
use keel_oci::spec::{IdMapping, Spec};

/// nobody.
const USER: u32 = 65534;

/// A bundle that belongs to the user.
struct Own(Bench);

impl Own {
    fn new() -> Self {
        let bench = Bench::new();
        for inside in ["", "tmp", "etc"] {
            bench.image.give(inside, USER);
        }
        let dir = bench.dir.path();
        std::os::unix::fs::chown(dir, Some(USER), Some(USER)).unwrap();
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
        // The build's folders may be closed to others.
        std::fs::copy(env!("CARGO_BIN_EXE_keel-oci"), dir.join("program")).unwrap();
        Self(bench)
    }

    /// A verb as the user, who has no groups.
    fn command(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(self.0.dir.path().join("program"));
        command.args(verb).env("XDG_RUNTIME_DIR", self.0.dir.path()).current_dir(self.0.dir.path());
        command.uid(USER).gid(USER);
        command
    }

    fn call(&self, verb: &[&str]) -> Output {
        let mut command = self.command(verb);
        // A copy just made may be held open for writing by another test's child for a moment.
        for _ in 0..1000 {
            match command.output() {
                Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {}
                other => return other.unwrap(),
            }
        }
        panic!("the program stays busy");
    }

    fn run(&self, spec: &Spec) -> (Option<i32>, String, String) {
        self.0.configure(spec);
        let output = self.call(&["run", "own"]);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }
}

/// What a rootless configuration is: the user alone, as root.
fn own(script: &str) -> Spec {
    let mut spec = spec(script);
    let map = vec![IdMapping { container_id: 0, host_id: USER, size: 1 }];
    (spec.linux.uid_mappings, spec.linux.gid_mappings) = (map.clone(), map);
    for mount in &mut spec.mounts {
        // Of a group that isn't mapped.
        mount.options.retain(|o| o != "gid=5");
    }
    spec
}

#[test]
fn a_user_is_root_of_a_container_of_its_own() {
    let own_bundle = Own::new();
    // Root's containers are there, too; with cgroup v1 alone there is no such place.
    let _ = std::fs::create_dir("/sys/fs/cgroup/unified/keel-oci");
    let script = "id -u; id -g; cat /proc/self/uid_map; hostname; echo x >/dev/null && echo wrote; \
        echo y >/tmp/made && stat -c %u /tmp/made; ls /dev/pts; [ -e /proc/kcore ] && cat /proc/kcore; exit 7";
    let (code, out, said) = own_bundle.run(&own(script));
    assert_eq!(code, Some(7), "{out}{said}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..2], ["0", "0"], "{out}");
    assert_eq!(lines[2].split_whitespace().collect::<Vec<_>>(), ["0", "65534", "1"]);
    assert_eq!(&lines[3..], ["box", "wrote", "0", "ptmx"], "{out}");
    let made = std::fs::metadata(own_bundle.0.image.path("tmp/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), USER);
    assert_eq!(left_over(&own_bundle.0, "own"), Vec::<String>::new());
}

#[test]
fn a_user_leads_a_container_through_its_whole_life() {
    let bundle = Own::new();
    bundle.0.configure(&own("exec sleep 100"));
    let null = std::process::Stdio::null;
    let mut create = bundle.command(&["create", "own"]);
    let created = (0..1000).find_map(|_| create.stdin(null()).stdout(null()).stderr(null()).status().ok());
    assert!(created.unwrap().success(), "{:?}", bundle.call(&["create", "other"]));
    let good = |verb: &[&str]| {
        let output = bundle.call(verb);
        assert!(output.status.success(), "{verb:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(good(&["state", "own"]).contains("\"created\""));
    good(&["start", "own"]);
    let out = good(&["exec", "own", "sh", "-c", "id -u; readlink /proc/self/ns/user; readlink /proc/1/ns/user"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(lines[1], lines[2]);
    assert!(good(&["list"]).contains("65534"), "whose it is");
    good(&["kill", "own", "KILL"]);
    good(&["delete", "--force", "own"]);
    assert_eq!(left_over(&bundle.0, "own"), Vec::<String>::new());
}

/// Ten more IDs of each kind.
fn with_more(mut spec: Spec) -> Spec {
    for lines in [&mut spec.linux.uid_mappings, &mut spec.linux.gid_mappings] {
        lines.push(IdMapping { container_id: 1, host_id: 200_000, size: 10 });
    }
    spec
}

#[test]
fn a_user_has_the_further_ids_that_it_is_given() {
    let bundle = Own::new();
    let ids = bundle.0.dir.path().join("ids");
    std::fs::write(&ids, format!("{USER}:200000:10\n")).unwrap();
    let mut spec = with_more(own("id -u; id -g; cat /proc/self/uid_map; echo y >/tmp/made"));
    (spec.process.user.uid, spec.process.user.gid) = (7, 8);
    std::fs::set_permissions(bundle.0.image.path("tmp"), std::fs::Permissions::from_mode(0o777)).unwrap();
    bundle.0.configure(&spec);
    // The files that say whose IDs are whose, for this process and those below it.
    let script = "mount --bind $0 /etc/subuid && mount --bind $0 /etc/subgid && \
        exec setpriv --reuid 65534 --regid 65534 --clear-groups -- \"$@\"";
    let inner = bundle.command(&["run", "own"]);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--", "sh", "-c", script]).arg(&ids).arg(inner.get_program()).args(inner.get_args());
    command.env("XDG_RUNTIME_DIR", bundle.0.dir.path()).current_dir(bundle.0.dir.path());
    let output = command.output().expect("these tests need util-linux");
    let (out, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}: is the package uidmap installed? `make deps` does it");
    let words: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(words, [vec!["7"], vec!["8"], vec!["0", "65534", "1"], vec!["1", "200000", "10"]], "{out}");
    let made = std::fs::metadata(bundle.0.image.path("tmp/made")).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&made), 200_006, "user 7");
    assert_eq!(left_over(&bundle.0, "own"), Vec::<String>::new());
}

#[test]
fn what_only_root_may_is_refused_in_words() {
    let bundle = Own::new();
    let mut other = own("true");
    other.linux.uid_mappings[0].host_id = 1;
    let (code, _, said) = bundle.run(&other);
    assert!(code != Some(0) && said.contains("0 must be user 65534"), "{said}");
    let (code, _, said) = bundle.run(&with_more(own("true")));
    assert!(code != Some(0) && said.contains("newuidmap gives no such IDs") && said.contains("/etc/subuid"), "{said}");
    let (code, _, said) = bundle.run(&common::host_users(own("true")));
    assert!(code != Some(0) && said.contains("with a user namespace"), "{said}");
    let mut memory = own("true");
    memory.linux.resources.get_or_insert_default().memory.get_or_insert_default().limit = Some(64 << 20);
    let (code, _, said) = bundle.run(&memory);
    assert!(code != Some(0) && (said.contains("cgroup") || said.contains("memory")), "{said}");
}

/// As Podman calls it: in a user namespace that it has made, for a container that needs none.
#[test]
fn in_the_user_namespace_of_an_engine_devices_are_bound() {
    let bundle = Own::new();
    let script = "id -u; echo x >/dev/null && busybox head -c 4 /dev/zero | busybox wc -c";
    let mut spec = common::host_users(own(script));
    spec.process.oom_score_adj = Some(-500);
    bundle.0.configure(&spec);
    let inner = bundle.command(&["run", "own"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--"]).arg(inner.get_program()).args(inner.get_args());
    command.env("XDG_RUNTIME_DIR", bundle.0.dir.path()).current_dir(bundle.0.dir.path());
    let output = command.uid(USER).gid(USER).output().expect("these tests need util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n4\n", "{said}");
    assert_eq!(left_over(&bundle.0, "own"), Vec::<String>::new());
}
