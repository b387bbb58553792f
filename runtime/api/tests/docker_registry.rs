//! The real `docker` client, a registry with a password, and the daemon between them.

mod common;

use std::process::Command;

use common::http::serve;
use common::registry::{Registry, told};
use common::{Daemon, busybox};

#[test]
fn who_is_logged_in_pushes_and_pulls_one_tag_or_all() {
    let registry = Registry::start();
    let daemon = registry.daemon("");
    daemon.import_busybox();
    let name = |tag: &str| format!("{}/team/box:{tag}", registry.address);
    for tag in ["1", "2", "third"] {
        daemon.ok(&["tag", "box:1", &name(tag)]);
    }
    registry.refused(&daemon, &["push", &name("1")]);
    let wrong = registry.login(&daemon, "guess");
    assert!(!wrong.status.success() && told(&wrong).contains("unauthorized"), "{}", told(&wrong));
    let right = registry.login(&daemon, "secret");
    assert!(told(&right).contains("Login Succeeded"), "{}", told(&right));
    registry.ok(&daemon, &["push", "--all-tags", &format!("{}/team/box", registry.address)]);
    for tag in ["1", "2", "third"] {
        daemon.ok(&["rmi", &name(tag)]);
    }
    registry.ok(&daemon, &["pull", &name("2")]);
    let named = |daemon: &Daemon| {
        let list = daemon.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=*/team/*"]);
        let mut list: Vec<String> = list.lines().map(str::to_owned).collect();
        list.sort_unstable();
        list
    };
    assert_eq!(named(&daemon), [name("2")]);
    let all = format!("{}/team/box", registry.address);
    let said = registry.ok(&daemon, &["pull", "--all-tags", &all]);
    assert_eq!(named(&daemon), ["1", "2", "third"].map(name), "{said}");
    let said = registry.refused(&daemon, &["pull", "--all-tags", &format!("{all}x")]);
    assert!(said.contains("/boxx") && said.contains("not known to registry"), "{said}");
    registry.ok(&daemon, &["logout", &registry.address]);
    daemon.ok(&["rmi", &name("2")]);
    registry.refused(&daemon, &["pull", &name("2")]);
    assert_eq!(named(&daemon), ["1", "third"].map(name));
}

#[test]
fn a_host_that_wants_digests_pulls_and_runs_by_digest_alone() {
    let registry = Registry::start();
    let daemon = registry.daemon("");
    daemon.import_busybox();
    let name = format!("{}/box", registry.address);
    daemon.ok(&["tag", "box:1", &format!("{name}:1")]);
    assert!(registry.login(&daemon, "secret").status.success());
    registry.ok(&daemon, &["push", &format!("{name}:1")]);
    let digest = daemon.ok(&["image", "inspect", "--format", "{{index .RepoDigests 0}}", &format!("{name}:1")]);
    let daemon = daemon.restart(&registry.config("require_digest = true\n"));
    for words in [&["pull", &format!("{name}:1")][..], &["run", "--rm", "--network", "none", "box:1", "sh"]] {
        let said = registry.refused(&daemon, words);
        assert!(said.contains("have to be named by digest"), "{said}");
    }
    daemon.ok(&["rmi", "--force", &format!("{name}:1"), "box:1"]);
    registry.ok(&daemon, &["pull", digest.trim()]);
    registry.ok(&daemon, &["run", "--rm", "--network", "none", digest.trim(), "sh", "-c", ":"]);
}

#[test]
fn an_archive_is_imported_from_an_address() {
    let daemon = Daemon::start();
    let plain = busybox(daemon.folder.path());
    for (format, tool) in
        [("xz", &["xz", "-c"][..]), ("bzip2", &["bzip2", "-c"]), ("zstd", &["zstd", "-qc"]), ("none", &["cat"])]
    {
        let packed = Command::new(tool[0]).args(&tool[1..]).arg(&plain).output().expect("run it");
        assert!(packed.status.success(), "{tool:?}");
        let address = serve("/root.tar", packed.stdout);
        let tag = format!("from:{format}");
        let said = daemon.ok(&["import", "--change", "ENV A=1", &format!("http://{address}/root.tar"), &tag]);
        assert!(said.contains("sha256:"), "{said}");
        assert_eq!(daemon.run(&[&tag, "sh", "-c", "echo $A"], b"").stdout, b"1\n");
    }
    let address = serve("/root.tar", Vec::new());
    let missing = daemon.docker(&["import", &format!("http://{address}/other"), "from:none"], b"");
    assert!(!missing.status.success() && told(&missing).contains("404"), "{}", told(&missing));
}
