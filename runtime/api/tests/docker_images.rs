//! Images made of containers and what they take on disk, driven by the real `docker` client.

mod common;

use common::Daemon;

#[test]
fn a_container_becomes_an_image_with_changed_files_and_settings() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let script = "echo made >/new; rm /bin/seq; echo -n $A";
    let words = ["-e", "A=1", "-w", "/work", "--label", "l=1", "box:1", "sh", "-c", script];
    daemon.ok(&[&["run", "--name", "one", "--network", "none"], &words[..]].concat());
    let changes = ["-c", "CMD [\"cat\", \"/new\"]", "-c", "ENV B=two", "-a", "me", "-m", "why"];
    let id = daemon.ok(&[&["commit"], &changes[..], &["one", "made:1"]].concat());
    assert_eq!(daemon.run(&["made:1"], b"").stdout, b"made\n");
    let gone = daemon.run(&["made:1", "/bin/seq", "1"], b"");
    assert_eq!(gone.status.code(), Some(127), "what was removed stays so: {gone:?}");
    let shown = |format: &str| daemon.ok(&["image", "inspect", "--format", format, "made:1"]);
    assert_eq!(shown("{{.Id}} {{.Author}} {{.Comment}} {{.Config.WorkingDir}}"), format!("{id} me why /work"));
    let env = shown("{{.Config.Env}}");
    assert!(env.contains("A=1") && env.contains("B=two"), "{env}");
    let history = daemon.ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "made:1"]);
    assert_eq!(history.lines().next(), Some(format!("sh -c {script}").as_str()));
    let event = daemon.ok(&["events", "--since", "1", "--until", "-1s", "--filter", "event=commit"]);
    assert!(event.contains(&id), "{event}");
}

#[test]
fn containers_that_run_and_that_never_ran_are_committed_and_bad_changes_leave_nothing() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&["create", "--name", "still", "--network", "none", "box:1", "cat", "/etc/none"]);
    daemon.ok(&["commit", "still", "still:1"]);
    let layers = daemon.ok(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", "still:1"]);
    assert_eq!(layers, "1", "a container that never ran adds no layer");
    daemon.ok(&["run", "-d", "--name", "runs", "--network", "none", "box:1", "sh", "-c", "echo x >/x; sleep 99"]);
    let begun = std::time::Instant::now();
    while !daemon.docker(&["exec", "runs", "test", "-s", "/x"], b"").status.success() {
        assert!(begun.elapsed().as_secs() < 20, "the container does nothing");
    }
    daemon.ok(&["commit", "runs", "runs:1"]);
    assert_eq!(daemon.run(&["runs:1", "cat", "/x"], b"").stdout, b"x\n");
    let before = daemon.ok(&["images", "-aq"]);
    for (changes, word) in [("RUN true", "RUN"), ("EXPOSE x", "EXPOSE")] {
        let refused = daemon.docker(&["commit", "-c", changes, "runs"], b"");
        assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains(word), "{refused:?}");
    }
    let missing = daemon.docker(&["commit", "nope"], b"");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("No such container: nope"), "{missing:?}");
    assert_eq!(daemon.ok(&["images", "-aq"]), before);
}

#[test]
fn disk_usage_counts_shared_layers_once() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let fill =
        "i=0; while test $i -lt 1000; do echo 0123456789012345678901234567890123456789012345678; i=$((i+1)); done";
    let fill = format!("{fill} >/data/fifty; cat /data/fifty >/also");
    daemon.ok(&["run", "--name", "one", "--network", "none", "-v", "vol:/data", "box:1", "sh", "-c", &fill]);
    daemon.ok(&["commit", "one", "made:1"]);
    let sizes = |kind: &str, format: &str| {
        let text = daemon.ok(&["system", "df", "--format", "{{json .}}"]);
        let line = text.lines().find(|line| line.contains(kind)).unwrap_or_else(|| panic!("{kind} in {text}"));
        assert!(line.contains(format), "{line}");
    };
    sizes("Containers", r#""Size":"50kB""#);
    sizes("Local Volumes", r#""Size":"50kB""#);
    sizes("Images", r#""TotalCount":"2""#);
    let verbose = daemon.ok(&["system", "df", "-v"]);
    let images: Vec<&str> =
        verbose.lines().filter(|line| line.starts_with("box") || line.starts_with("made")).collect();
    let columns = |line: &str| line.split_whitespace().rev().take(3).map(str::to_owned).collect::<Vec<_>>();
    let (made, base) = (images[0], images[1]);
    assert_eq!(columns(made)[1..], ["50kB".to_owned(), columns(base)[2].clone()], "unique, shared: {verbose}");
    assert_eq!(columns(base)[1], "0B", "all of the base is shared: {verbose}");
    let volumes = verbose.lines().find(|line| line.starts_with("vol ")).unwrap();
    assert_eq!(volumes.split_whitespace().collect::<Vec<_>>(), ["vol", "1", "50kB"]);
}
