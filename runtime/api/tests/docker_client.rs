//! Containers, driven by the real `docker` client.

mod common;

use common::Daemon;

#[test]
fn streams_and_exit_codes_come_through_whole() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let output = daemon.run(&["box:1", "sh", "-c", "echo out; echo err >&2; exit 7"], b"");
    assert_eq!(output.status.code(), Some(7), "{output:?}");
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    let output = daemon.run(&["box:1", "seq", "1", "100000"], b"");
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 100_000);
    // More than one file of the log holds: the client must get it all the same, also after the removal that `--rm` asks for.
    let input: Vec<u8> = (0..12_u32 << 20).map(|index| (index % 251) as u8).collect();
    let output = daemon.run(&["-i", "box:1", "cat"], &input);
    assert!(output.status.success() && output.stdout == input, "{} bytes came back", output.stdout.len());
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_start_that_fails_ends_run_with_the_right_code_and_is_removed() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    for (program, code) in [("/bin/not-there", 127), ("/etc/hosts", 126)] {
        let output = daemon.run(&["box:1", program], b"");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(program), "{output:?}");
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
}

#[test]
fn a_containers_life_as_the_client_sees_it() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let id = daemon.ok(&["run", "-d", "--name", "one", "--network", "none", "box:1", "sh", "-c", "echo a; sleep 99"]);
    assert_eq!(daemon.ok(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"]), format!("{id} one"));
    daemon.ok(&["kill", "one"]);
    assert_eq!(daemon.ok(&["wait", "one"]), "137");
    assert_eq!(daemon.ok(&["logs", "--tail", "1", "one"]), "a");
    daemon.ok(&["rm", "one"]);
    daemon.ok(&["rmi", "box:1"]);
    assert_eq!(daemon.ok(&["images", "-q"]), "");
    let refused = daemon.docker(&["swarm", "leave"], b"");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("does not serve"), "{refused:?}");
}
