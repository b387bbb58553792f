//! Files of containers, driven by the real `docker` client: `cp`, `diff`, `export`.

mod common;

use std::fs;

use common::Daemon;

#[test]
fn files_are_copied_in_and_out_of_running_and_stopped_containers() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let folder = daemon.folder.path().join("tree");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/file"), b"hello").unwrap();
    daemon.ok(&["create", "--name", "still", "--network", "none", "-v", "/data", "box:1", "sleep", "99"]);
    daemon.ok(&[
        "run",
        "-d",
        "--name",
        "runs",
        "--network",
        "none",
        "-v",
        "/data",
        "--tmpfs",
        "/ram",
        "box:1",
        "sleep",
        "99",
    ]);
    for name in ["still", "runs"] {
        for into in ["/", "/data/"] {
            daemon.ok(&["cp", folder.to_str().unwrap(), &format!("{name}:{into}")]);
            let back = daemon.folder.path().join(format!("{name}-back{}", into.replace('/', "-")));
            daemon.ok(&["cp", &format!("{name}:{into}tree/sub"), back.to_str().unwrap()]);
            assert_eq!(fs::read(back.join("file")).unwrap(), b"hello", "{name}:{into}");
        }
        let missing = daemon.docker(&["cp", &format!("{name}:/nope"), "/tmp"], b"");
        assert!(String::from_utf8_lossy(&missing.stderr).contains("Could not find the file /nope"), "{missing:?}");
        let stream = daemon.docker(&["cp", &format!("{name}:/tree/sub/file"), "-"], b"").stdout;
        assert_eq!(&stream[..4], b"file");
    }
    daemon.ok(&["cp", folder.join("sub/file").to_str().unwrap(), "runs:/ram/renamed"]);

    daemon.ok(&["start", "still"]);
}

#[test]
fn changes_and_exports_are_of_the_container_alone() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let script = "echo x >/new; mkdir /made; echo y >/made/y; rm /bin/seq; echo z >/bin/cat.new";
    daemon.ok(&["run", "--name", "one", "--network", "none", "-v", "/data", "box:1", "sh", "-c", script]);
    let changes = daemon.ok(&["diff", "one"]);
    let mut lines: Vec<&str> = changes.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A /bin/cat.new", "A /data", "A /made", "A /made/y", "A /new", "C /bin", "D /bin/seq"]);
    let archive = daemon.docker(&["export", "one"], b"").stdout;
    let path = daemon.folder.path().join("export.tar");
    fs::write(&path, archive).unwrap();
    let listed = std::process::Command::new("tar").arg("-tf").arg(&path).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.status.success() && names.lines().any(|name| name == "made/y"), "{names}");
    assert!(!names.lines().any(|name| name == "bin/seq"));
    daemon.ok(&["import", path.to_str().unwrap(), "again:1"]);
    assert_eq!(daemon.run(&["again:1", "cat", "/new"], b"").stdout, b"x\n");
    let sizes = daemon.ok(&["ps", "-as", "--format", "{{.Size}}"]);
    assert!(sizes.starts_with("6B (virtual"), "{sizes}");
}
