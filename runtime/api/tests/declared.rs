//! What the machine config declares is there, in order, and follows the config. The image comes late, as from a
//! registry that isn't up yet.

mod common;

use std::time::Duration;

use common::{Daemon, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

const FIRST: &str = r#"
[registry]
insecure = ["127.0.0.1:9"]
[[container]]
name = "web"
image = "127.0.0.1:9/box:1"
command = "sleep 600"
network_mode = "none"
labels = { tier = "front" }
depends_on = { db = { condition = "service_healthy" }, setup = { condition = "service_completed_successfully" } }
[[container]]
name = "db"
image = "127.0.0.1:9/box:1"
command = ["sh", "-c", "touch /well; sleep 600"]
network_mode = "none"
healthcheck = { test = ["CMD", "cat", "/well"], interval = "200ms" }
[[container]]
name = "setup"
image = "127.0.0.1:9/box:1"
command = "sh -c 'echo done > /data/word'"
network_mode = "none"
volumes = ["data:/data"]
[[volume]]
name = "data"
"#;

fn state(daemon: &Daemon, name: &str) -> String {
    let shown = daemon.docker(&["inspect", "--format", "{{.Id}} {{.State.Status}}", name], b"");
    String::from_utf8_lossy(&shown.stdout).trim_end().to_owned()
}

fn wait_for(daemon: &Daemon, name: &str, status: &str) -> String {
    wait_until(&format!("{name} to be {status}"), LIMIT, || state(daemon, name).ends_with(status));
    state(daemon, name).split(' ').next().unwrap().to_owned()
}

#[test]
fn what_is_declared_is_made_in_order_changed_and_removed() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let daemon = Daemon::start_in(folder, FIRST);
    daemon.import_busybox();
    assert_eq!(daemon.ok(&["ps", "-aq"]), "", "nothing is made without its image");
    daemon.ok(&["create", "--name", "mine", "--network", "none", "box:1", "sleep", "9"]);
    daemon.ok(&["tag", "box:1", "127.0.0.1:9/box:1"]);
    let web = wait_for(&daemon, "web", "running");
    let db = wait_for(&daemon, "db", "running");
    wait_for(&daemon, "setup", "exited");
    let begun = |name: &str| daemon.ok(&["inspect", "--format", "{{.State.StartedAt}}", name]);
    assert!(begun("web") > begun("db"));
    assert_eq!(daemon.ok(&["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", "web"]), "always");
    assert_eq!(daemon.ok(&["inspect", "--format", "{{.HostConfig.RestartPolicy.Name}}", "setup"]), "on-failure");
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "data");

    // The web container changes; the one that prepared things is gone from the config.
    let second = FIRST.replace("tier = \"front\"", "tier = \"back\"");
    let at = second.find("[[container]]\nname = \"setup\"").unwrap();
    let second = second[..at].replace(", setup = { condition = \"service_completed_successfully\" }", "");
    let daemon = daemon.restart(&second);
    wait_until("setup to be removed", LIMIT, || state(&daemon, "setup").is_empty());
    wait_until("web to be made anew", LIMIT, || {
        let now = state(&daemon, "web");
        now.ends_with("running") && !now.starts_with(&web)
    });
    assert_eq!(daemon.ok(&["inspect", "--format", "{{.Config.Labels.tier}}", "web"]), "back");
    assert!(state(&daemon, "db").starts_with(&db), "what didn't change stays the same container");
    assert!(state(&daemon, "mine").ends_with("created"), "what the config did not make is left alone");
    assert_eq!(daemon.ok(&["volume", "ls", "-q"]), "data", "volumes are data");

    let daemon = daemon.restart("");
    wait_until("all declared ones to be removed", LIMIT, || daemon.ok(&["ps", "-aq"]).lines().count() == 1);
    assert!(state(&daemon, "mine").ends_with("created"));
}

#[test]
fn a_compose_file_is_a_declaration() {
    let config = "compose = '''\nname: shop\nservices:\n  web:\n    image: 127.0.0.1:9/box:1\n    command: sleep 600\n    \
                  network_mode: none\n'''\n[registry]\ninsecure = [\"127.0.0.1:9\"]\n";
    let daemon = Daemon::start_in(tempfile::tempdir_in("/dev/shm").unwrap(), config);
    daemon.import_busybox();
    daemon.ok(&["tag", "box:1", "127.0.0.1:9/box:1"]);
    wait_for(&daemon, "web", "running");
}
