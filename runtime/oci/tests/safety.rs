//! What a failed creation must not leave. Needs root.

mod common;

use common::bench::{Bench, left_over};
use common::{host_users, spec};
use keel_oci::spec::{Device, Hook, Hooks, Mount, Spec};

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
    add("prestart hook #0: /bin/false", &|s| {
        s.hooks = Some(Hooks { prestart: hook("/bin/false"), ..Hooks::default() });
    });
    add("createContainer hook #0: /bin/false", &|s| {
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
    let call = |verb: &[&str]| bench.command(verb).output().unwrap();
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
