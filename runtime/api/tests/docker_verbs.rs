//! What is told of containers and done to them, driven by the real `docker` client.

mod common;

use common::Daemon;

#[test]
fn events_tell_of_a_whole_life_and_can_be_filtered() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let run = ["run", "--name", "one", "--label", "tier=front", "--network", "none", "box:1", "sh", "-c", "exit 3"];
    assert_eq!(daemon.docker(&run, b"").status.code(), Some(3));
    daemon.ok(&["rename", "one", "two"]);
    daemon.ok(&["rm", "two"]);
    // The client knows whole seconds only.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let until = (now.as_secs() + 1).to_string();
    let all = daemon.ok(&["events", "--since", "1", "--until", &until, "--format", "{{.Action}}"]);
    let all: Vec<&str> = all.lines().collect();
    assert_eq!(all, ["import", "create", "attach", "start", "die", "rename", "destroy"]);
    let events = |filter: &str| {
        daemon.ok(&["events", "--since", "1", "--until", &until, "--filter", filter, "--format", "{{json .}}"])
    };
    let died = events("event=die");
    assert!(died.contains(r#""exitCode":"3""#) && died.contains(r#""tier":"front""#), "{died}");
    assert_eq!(events("label=tier=back"), "");
    assert_eq!(events("container=two").lines().count(), 2);
}

#[test]
fn the_store_tells_how_it_keeps_images() {
    let daemon = Daemon::start();
    // No file system in memory has it.
    assert_eq!(daemon.ok(&["info", "--format", "{{.Driver}} {{index .DriverStatus 1}}"]), "overlay [fs-verity false]");
    let told = daemon.ok(&["info"]);
    assert!(told.contains("Image format: composefs"), "{told}");
}

#[test]
fn processes_and_use_are_told() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&["run", "-d", "--name", "one", "--network", "none", "box:1", "sh", "-c", "sleep 77 & sleep 99; true"]);
    let table = daemon.ok(&["top", "one"]);
    assert!(table.lines().next().unwrap().starts_with("UID"), "{table}");
    assert!(table.contains("sleep 77") && table.contains("sleep 99"), "{table}");
    assert_eq!(daemon.ok(&["top", "one", "-o", "pid,comm"]).lines().next().unwrap().split_whitespace().count(), 2);
    let stats = daemon.ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "one"]);
    assert_eq!(stats, "one 3");
    let stopped = daemon.docker(&["top", "nope"], b"");
    assert!(String::from_utf8_lossy(&stopped.stderr).contains("No such container: nope"), "{stopped:?}");
}

#[test]
fn lists_are_filtered_and_pruned() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    for name in ["a1", "a2", "a3"] {
        let label = format!("n={name}");
        daemon.ok(&[
            "create",
            "--name",
            name,
            "--label",
            &label,
            "--expose",
            "80",
            "--network",
            "none",
            "box:1",
            "sleep",
            "9",
        ]);
    }
    let list = |filter: &str| daemon.ok(&["ps", "-a", "--filter", filter, "--format", "{{.Names}}"]);
    assert_eq!(list("before=a2"), "a1");
    assert_eq!(list("since=a2"), "a3");
    assert_eq!(list("expose=70-90/tcp").lines().count(), 3);
    assert_eq!(list("network=none").lines().count(), 3);
    assert_eq!(list("health=none").lines().count(), 3);
    let wrong = daemon.docker(&["ps", "--filter", "color=red"], b"");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("invalid filter 'color'"), "{wrong:?}");
    let pruned = daemon.ok(&["container", "prune", "-f", "--filter", "label!=n=a1"]);
    assert!(pruned.contains("Total reclaimed space"), "{pruned}");
    assert_eq!(list("name=a"), "a1");
    daemon.ok(&["container", "prune", "-f", "--filter", "until=1h"]);
    assert_eq!(list("name=a"), "a1");
}

#[test]
fn limits_change_and_what_can_not_change_is_refused() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&["create", "--name", "one", "--network", "none", "box:1", "sleep", "9"]);
    daemon.ok(&["update", "--memory", "64m", "--memory-swap", "64m", "--restart", "on-failure:3", "one"]);
    let shown = daemon.ok(&["inspect", "--format", "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}", "one"]);
    assert_eq!(shown, "67108864 on-failure");
    let wrong = daemon.docker(&["update", "--memory", "1m", "one"], b"");
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("Minimum memory limit"), "{wrong:?}");
    let paused = daemon.docker(&["pause", "one"], b"");
    assert!(String::from_utf8_lossy(&paused.stderr).contains("is not running"), "{paused:?}");
}

#[test]
fn health_is_checked_and_told() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let options = ["--health-interval", "200ms", "--health-retries", "2", "--health-cmd", "cat /well"];
    let words = ["--network", "none", "box:1", "sh", "-c", "touch /well; sleep 99"];
    daemon.ok(&[&["run", "-d", "--name", "one"], &options[..], &words].concat());
    let status = || daemon.ok(&["inspect", "--format", "{{.State.Health.Status}}", "one"]);
    let wait_for = |wanted: &str| {
        let begun = std::time::Instant::now();
        while status() != wanted {
            assert!(begun.elapsed().as_secs() < 30, "it stays {}, not {wanted}", status());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    wait_for("healthy");
    assert!(daemon.ok(&["ps", "--format", "{{.Status}}"]).contains("(healthy)"));
    assert_eq!(daemon.ok(&["ps", "-q", "--filter", "health=healthy"]).lines().count(), 1);
    daemon.ok(&["exec", "one", "rm", "/well"]);
    wait_for("unhealthy");
    let log = daemon.ok(&["inspect", "--format", "{{json .State.Health.Log}}", "one"]);
    assert!(log.contains("/well") && log.contains("\"ExitCode\":1"), "{log}");
}

#[test]
fn devices_are_given_and_what_has_no_driver_is_refused() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let output =
        daemon.run(&["--device", "/dev/zero:/dev/mine", "box:1", "sh", "-c", "test -c /dev/mine && echo x"], b"");
    assert_eq!(output.stdout, b"x\n", "{output:?}");
    let refused = daemon.run(&["--gpus", "all", "box:1", "true"], b"");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--gpus"), "{refused:?}");
}
