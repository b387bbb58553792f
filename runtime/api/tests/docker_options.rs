//! Options of `docker run`, driven by the real client.

mod common;

use std::time::Duration;

use common::http::Api;
use common::{Daemon, wait_until};

const LIMIT: Duration = Duration::from_secs(30);

fn text(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

fn refused(output: &std::process::Output, word: &str) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains(word), "{output:?}");
}

#[test]
fn init_reaps_passes_signals_on_and_ends_with_the_programs_code() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    // The program of these tests isn't static, as that of a host is.
    let libraries = ["-v", "/lib64:/lib64:ro", "-v", "/lib/x86_64-linux-gnu:/lib/x86_64-linux-gnu:ro", "--init"];
    let run = |words: &[&str]| daemon.run(&[&libraries[..], words].concat(), b"");
    let output = run(&["box:1", "sh", "-c", "exit 7"]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    let output = run(&["box:1", "/bin/none-such"]);
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    // An orphan that ends becomes the first process's child.
    let script = "trap 'exit 5' TERM; sh -c 'sleep 0.1 & exit 0'; while :; do usleep 50000; done";
    let words = ["--name", "one", "--network", "none", "box:1", "sh", "-c", script];
    daemon.ok(&[&["run", "-d"], &libraries[..], &words].concat());
    wait_until("the orphan to be reaped", LIMIT, || {
        let top = daemon.ok(&["top", "one", "-o", "pid,stat,comm"]);
        top.contains("docker-init") && !top.contains(" Z") && !top.contains("sleep 0")
    });
    assert_eq!(daemon.ok(&["exec", "one", "cat", "/proc/1/comm"]), "docker-init");
    daemon.ok(&["stop", "-t", "20", "one"]);
    assert_eq!(daemon.ok(&["inspect", "--format", "{{.State.ExitCode}}", "one"]), "5");
}

#[test]
fn mounts_of_another_container_come_along() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&[
        "create",
        "--name",
        "from",
        "-v",
        "data:/data",
        "-v",
        "/anonymous",
        "--network",
        "none",
        "box:1",
        "true",
    ]);
    let output =
        daemon.run(&["--volumes-from", "from", "box:1", "sh", "-c", "echo x > /data/a; ls -d /anonymous"], b"");
    assert_eq!(text(&output), "/anonymous", "{output:?}");
    let output = daemon.run(&["--volumes-from", "from:ro", "box:1", "sh", "-c", "cat /data/a; touch /data/b"], b"");
    assert!(text(&output) == "x" && !output.status.success(), "{output:?}");
}

#[test]
fn logs_are_kept_as_asked_for() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let options = ["--log-driver", "local", "--log-opt", "max-size=8k", "--log-opt", "max-file=3"];
    let words = ["--name", "one", "--network", "none", "box:1", "seq", "1", "20000"];
    assert!(daemon.docker(&[&["run"], &options[..], &words].concat(), b"").status.success());
    let kept = daemon.ok(&["logs", "one"]);
    assert!(kept.ends_with("20000") && kept.len() < 3 * 8192, "{} bytes", kept.len());
    assert_eq!(daemon.ok(&["inspect", "--format", "{{.HostConfig.LogConfig.Type}}", "one"]), "local");
    let options = ["--label", "team=a b", "-e", "A=1", "--log-opt", "labels=team,none", "--log-opt", "env=A"];
    let more = ["--log-opt", "tag={{.Name}}", "--log-opt", "mode=non-blocking", "--log-opt", "max-buffer-size=1m"];
    let words = ["--name", "three", "--network", "none", "box:1", "seq", "1", "2"];
    assert!(daemon.docker(&[&["run"], &options[..], &more, &words].concat(), b"").status.success());
    assert_eq!(daemon.ok(&["logs", "three"]), "1\n2");
    let before = "A=1,tag=three,team=a+b";
    assert_eq!(daemon.ok(&["logs", "--details", "three"]), format!("{before} 1\n{before} 2"));
    refused(&daemon.run(&["--log-opt", "tag={{.Other}}", "box:1", "true"], b""), "{{.Other}}");
    let silent = ["run", "--name", "two", "--log-driver", "none", "--network", "none", "box:1", "seq", "1", "3"];
    assert_eq!(text(&daemon.docker(&silent, b"")), "1\n2\n3", "who is attached sees it");
    refused(&daemon.docker(&["logs", "two"], b""), "configured logging driver does not support reading");
    refused(&daemon.run(&["--log-driver", "syslog", "box:1", "true"], b""), "no log driver named 'syslog'");
}

#[test]
fn processes_and_ipc_are_shared_with_whom_is_asked_for() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&["run", "-d", "--name", "one", "--network", "none", "--ipc", "shareable", "box:1", "sleep", "600"]);
    let output = daemon.run(&["--pid", "container:one", "box:1", "sh", "-c", "cat /proc/1/cmdline"], b"");
    assert_eq!(text(&output).replace('\0', " ").trim(), "sleep 600", "{output:?}");
    daemon.ok(&["exec", "one", "sh", "-c", "echo shared > /dev/shm/word"]);
    let output = daemon.run(&["--ipc", "container:one", "box:1", "cat", "/dev/shm/word"], b"");
    assert_eq!(text(&output), "shared", "{output:?}");
    daemon.ok(&["run", "-d", "--name", "two", "--network", "none", "box:1", "sleep", "600"]);
    refused(&daemon.run(&["--ipc", "container:two", "box:1", "true"], b""), "non-shareable IPC");
    let output = daemon.run(&["--ipc", "none", "box:1", "ls", "/dev/shm"], b"");
    assert!(text(&output).is_empty(), "{output:?}");
    daemon.ok(&["rm", "-f", "one", "two"]);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&*daemon.folder.path().to_string_lossy()), "shared memory stays mounted");
}

#[test]
fn a_filter_of_ones_own_decides_and_a_wrong_one_is_refused() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let profile = daemon.folder.path().join("filter.json");
    let write = |syscalls: &str| {
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{syscalls}]}}"#);
        std::fs::write(&profile, text).unwrap();
    };
    let option = format!("seccomp={}", profile.display());
    write(r#"{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":95}"#);
    let output = daemon.run(&["--security-opt", &option, "box:1", "mkdir", "/new"], b"");
    assert!(String::from_utf8_lossy(&output.stderr).contains("not supported"), "{output:?}");
    write(r#"{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","includes":{"caps":["CAP_SYS_ADMIN"]}}"#);
    assert!(daemon.run(&["--security-opt", &option, "box:1", "mkdir", "/new"], b"").status.success());
    write(r#"{"names":["mkdir"],"action":"SCMP_ACT_FLY"}"#);
    refused(&daemon.run(&["--security-opt", &option, "box:1", "true"], b""), "Decoding seccomp profile failed");
}

#[test]
fn a_web_socket_carries_output_and_input() {
    use std::io::{Read, Write};
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&["create", "-i", "--name", "one", "--network", "none", "box:1", "cat"]);
    let mut stream = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let head = "GET /containers/one/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: keel\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let answer = String::from_utf8(answer).unwrap().to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 101") && answer.contains("s3pplmbitxaq9kygzzhzrbk+xoo="), "{answer}");
    daemon.ok(&["start", "one"]);
    stream.write_all(&[0x81, 0x83, 0, 0, 0, 0, b'h', b'i', b'\n']).unwrap();
    let mut frame = [0; 5];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x82\x03hi\n");
    stream.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, [0x88, 2, 0x03, 0xE8]);
    let plain = Api::new(&daemon.socket()).call("GET", "/containers/one/attach/ws", "");
    assert_eq!((plain.status, plain.message().contains("websocket")), (400, true), "{plain:?}");
}
