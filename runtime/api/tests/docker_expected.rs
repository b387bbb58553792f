//! Which containers should run, and what is wrong with them, told of containers that really run.

mod common;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::Daemon;
use keel_spec::api::expected::ExpectedContainer;

const LIMIT: Duration = Duration::from_secs(30);

fn expected(daemon: &Daemon) -> Vec<ExpectedContainer> {
    let mut stream = UnixStream::connect(daemon.folder.path().join("api.sock")).unwrap();
    stream.write_all(b"GET /keel/v1/containers HTTP/1.0\r\nHost: keel\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(" 200 "), "{head}");
    serde_json::from_str(body).unwrap()
}

/// Waits until what is told of a container is as it should be.
fn wait_for(daemon: &Daemon, name: &str, is_it: impl Fn(Option<&ExpectedContainer>) -> bool) {
    let begun = Instant::now();
    loop {
        let all = expected(daemon);
        if is_it(all.iter().find(|container| container.name == name)) {
            return;
        }
        assert!(begun.elapsed() < LIMIT, "{name}: {all:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn has_problem(words: &'static str) -> impl Fn(Option<&ExpectedContainer>) -> bool {
    move |found| found.and_then(|it| it.problem.as_ref()).is_some_and(|problem| problem.contains(words))
}

#[test]
fn a_declared_container_that_cannot_be_made_is_expected_and_not_good() {
    let config = "[registry]\ninsecure = [\"127.0.0.1:9\"]\n[[container]]\nname = \"web\"\n\
                  image = \"127.0.0.1:9/box:1\"\ncommand = \"sleep 600\"\nnetwork_mode = \"none\"\n";
    let daemon = Daemon::start_in(tempfile::tempdir_in("/dev/shm").unwrap(), config);
    wait_for(&daemon, "web", has_problem("is not made yet: image 127.0.0.1:9/box:1: "));
    daemon.import_busybox();
    daemon.ok(&["tag", "box:1", "127.0.0.1:9/box:1"]);
    wait_for(&daemon, "web", |found| found.is_some_and(|it| it.problem.is_none() && !it.id.is_empty()));
    daemon.ok(&["kill", "web"]);
}

#[test]
fn a_container_is_good_when_it_is_healthy_and_no_longer_expected_when_it_is_stopped() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let kept = ["run", "-d", "--network", "none", "--restart", "always"];
    let check = ["--health-cmd", "test -e /well", "--health-interval", "100ms", "--health-retries", "2"];
    daemon.ok(&[&kept[..], &["--name", "web"], &check, &["box:1", "sleep", "999"]].concat());
    wait_for(&daemon, "web", has_problem("is unhealthy"));
    daemon.ok(&["exec", "web", "touch", "/well"]);
    wait_for(&daemon, "web", |found| found.is_some_and(|it| it.problem.is_none()));

    daemon.ok(&[&kept[..], &["--name", "flap", "box:1", "sh", "-c", "exit 3"]].concat());
    wait_for(&daemon, "flap", has_problem("ended with code 3 and is started again"));
    daemon.ok(&["stop", "flap"]);
    wait_for(&daemon, "flap", |found| found.is_none());

    daemon.ok(&["run", "-d", "--network", "none", "--name", "once", "box:1", "sleep", "999"]);
    daemon.ok(&["create", "--network", "none", "--restart", "always", "--name", "never", "box:1", "sleep", "9"]);
    let names: Vec<String> = expected(&daemon).into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["web"]);
    daemon.ok(&["kill", "web", "once"]);
}
