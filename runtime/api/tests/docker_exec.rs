//! Further processes and terminals, driven by the real `docker` client; `script` (util-linux) gives it a terminal.

mod common;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::http::Api;
use common::{Daemon, wait_until};

/// Runs the client with a terminal of its own, types each text once the one before it was seen
/// (the terminal is raw only then), and returns all that was shown.
fn in_terminal(daemon: &Daemon, arguments: &str, steps: &[(&str, &[u8])]) -> String {
    let socket = daemon.folder.path().join("api.sock");
    let command = format!("timeout --foreground -s KILL 60 docker -H unix://{} {arguments}", socket.display());
    let mut child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("DOCKER_CONFIG", daemon.folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run script: is util-linux (bsdutils) installed?");
    let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
    let mut stdout = child.stdout.take().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut steps = steps.iter();
    let mut next = steps.next();
    loop {
        if let Some((prompt, typed)) = next
            && String::from_utf8_lossy(&shown).contains(prompt)
        {
            stdin.write_all(typed).unwrap();
            next = steps.next();
        }
        match stdout.read(&mut buffer) {
            Ok(count @ 1..) => shown.extend(&buffer[..count]),
            _ => break,
        }
    }
    child.wait().unwrap();
    String::from_utf8_lossy(&shown).into_owned()
}

#[test]
fn further_processes_have_streams_codes_users_and_variables() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&["run", "-d", "--name", "one", "--network", "none", "-e", "A=1", "box:1", "sleep", "99"]);
    let exec = |arguments: &[&str], input: &[u8]| daemon.docker(&[&["exec"], arguments].concat(), input);
    let output = exec(&["one", "sh", "-c", "echo out; echo err >&2; exit 7"], b"");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let input: Vec<u8> = (0..3_u32 << 20).map(|index| (index % 251) as u8).collect();
    let output = exec(&["-i", "one", "cat"], &input);
    assert!(output.status.success() && output.stdout == input, "{} bytes came back", output.stdout.len());
    let script = "echo $A $B $(id -u):$(id -g) $(pwd)";
    let output = exec(&["-e", "B=2", "-u", "33:44", "-w", "/bin", "one", "sh", "-c", script], b"");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1 2 33:44 /bin\n", "{output:?}");
    let output = exec(&["one", "/bin/not-there"], b"");
    assert_eq!(output.status.code(), Some(127), "{output:?}");
    daemon.ok(&["exec", "-d", "one", "sh", "-c", "echo later >/later"]);
    let seen = || exec(&["one", "cat", "/later"], b"").stdout == b"later\n";
    let begun = std::time::Instant::now();
    while !seen() {
        assert!(begun.elapsed().as_secs() < 20, "the detached process did nothing");
    }
    let stopped = daemon.docker(&["exec", "nope", "true"], b"");
    assert!(String::from_utf8_lossy(&stopped.stderr).contains("No such container"), "{stopped:?}");
    daemon.ok(&["kill", "one"]);
    let stopped = exec(&["one", "true"], b"");
    assert!(String::from_utf8_lossy(&stopped.stderr).contains("is not running"), "{stopped:?}");
}

#[test]
fn terminals_work_for_run_and_exec() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let typed = b"test -t 0 && echo is-$((40+2))\nexit 5\n";
    let shown = in_terminal(&daemon, "run --rm -it --network none box:1 sh", &[("#", typed)]);
    assert!(shown.contains("is-42"), "{shown}");
    daemon.ok(&["run", "-dit", "--name", "one", "--network", "none", "box:1", "sh"]);
    let shown = in_terminal(&daemon, "exec -it one sh", &[("#", b"tty; echo is-$((40+3)); exit\n")]);
    assert!(shown.contains("/dev/pts/") && shown.contains("is-43"), "{shown}");
    // Left by its keys, the container runs on, and its shell is still there for the next who attaches.
    let shown = in_terminal(&daemon, "attach one", &[("", b"\n"), ("#", b"X=left\n\x10\x11")]);
    assert!(shown.contains("read escape sequence"), "{shown}");
    assert_eq!(daemon.ok(&["inspect", "--format", "{{.State.Running}} {{.Config.Tty}}", "one"]), "true true");
    let shown = in_terminal(&daemon, "attach one", &[("", b"\n"), ("#", b"echo was-$X\nexit 9\n")]);
    assert!(shown.contains("was-left"), "{shown}");
    assert_eq!(daemon.ok(&["wait", "one"]), "9");
    assert!(daemon.ok(&["logs", "one"]).contains("was-left"));
}

/// Docker's Python SDK loses what is read together with the head of the answer.
#[test]
fn no_output_follows_the_head_before_a_client_has_read_that() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&["run", "-d", "--name", "one", "--network", "none", "box:1", "sleep", "600"]);
    let api = Api::new(&daemon.socket());
    let asked = r#"{"Cmd":["sh","-c","echo hello"],"AttachStdout":true}"#;
    let id = api.call("POST", "/containers/one/exec", asked).json()["Id"].as_str().unwrap().to_owned();
    let mut client = std::os::unix::net::UnixStream::connect(daemon.socket()).unwrap();
    let head = "Host: keel\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 2\r\n";
    client.write_all(format!("POST /exec/{id}/start HTTP/1.1\r\n{head}\r\n{{}}").as_bytes()).unwrap();
    let inspect = || api.call("GET", &format!("/exec/{id}/json"), "").json();
    wait_until("the command to end", Duration::from_secs(20), || inspect()["ExitCode"] == 0);
    let mut buffer = [0; 8192];
    let count = client.read(&mut buffer).unwrap();
    let first = String::from_utf8_lossy(&buffer[..count]);
    assert!(first.starts_with("HTTP/1.1 101") && first.ends_with("\r\n\r\n"), "{first:?}");
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert!(rest.ends_with(b"hello\n"), "{rest:?}");
}
