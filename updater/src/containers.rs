//! The containers that should run, as the runtime's API on this host tells.
//!
//! One `GET` over the API's socket, as much of HTTP/1.0 (RFC 1945) as that takes: the answer ends with the connection.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use keel_spec::api::expected::ExpectedContainer;

use crate::failure::chain;

/// Longest pause in the answer: the API asks nobody for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer.
const MAX_BYTES: u64 = 4 << 20;
/// Most containers that are named at once.
const MAX_NAMED: usize = 8;

/// When each container's run began, by ID, as last seen.
pub type Runs = BTreeMap<String, u64>;

/// What is wrong with the containers that should run. A container that runs, but has been started again since `runs`
/// was taken down, isn't good either: it may well go on like that.
pub fn wrong(socket: &Path, ignored: &[String], runs: &mut Runs) -> Vec<String> {
    match ask(socket) {
        Ok(found) => judge(&found, ignored, runs),
        Err(why) => vec![format!("containers not known ({why})")],
    }
}

fn judge(found: &[ExpectedContainer], ignored: &[String], runs: &mut Runs) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut now = Runs::new();
    for container in found.iter().filter(|container| !ignored.contains(&container.name)) {
        let again = match (runs.get(&container.id), container.started_unix_ms) {
            (Some(before), Some(started)) => *before != started,
            _ => false,
        };
        now.extend(container.started_unix_ms.map(|started| (container.id.clone(), started)));
        match &container.problem {
            Some(problem) => wrong.push(format!("container {} {problem}", container.name)),
            None if again => wrong.push(format!("container {} was started again", container.name)),
            None => {}
        }
    }
    *runs = now;
    let more = wrong.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        wrong.truncate(MAX_NAMED);
        wrong.push(format!("{more} more containers not good"));
    }
    wrong
}

fn ask(socket: &Path) -> Result<Vec<ExpectedContainer>, String> {
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(b"GET /keel/v1/containers HTTP/1.0\r\nHost: keel\r\n\r\n")?;
        let mut bytes = Vec::new();
        stream.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let answer = exchange().map_err(|error| format!("ask the runtime at {}: {}", socket.display(), chain(&error)))?;
    parse(&answer).map_err(|why| format!("the runtime's answer {why}"))
}

/// Reads a whole answer; safe on any bytes.
fn parse(answer: &[u8]) -> Result<Vec<ExpectedContainer>, String> {
    if answer.len() as u64 > MAX_BYTES {
        return Err(format!("is longer than {MAX_BYTES} bytes"));
    }
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").ok_or("has no head")?;
    let (head, body) = answer.split_at(end);
    let head = String::from_utf8_lossy(head);
    let status = head.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
    if status != "200" {
        return Err(format!("has the status {:?}", status.chars().take(8).collect::<String>()));
    }
    serde_json::from_slice(&body[4..]).map_err(|error| format!("can't be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn container(name: &str, problem: Option<&str>, started: u64) -> ExpectedContainer {
        let (id, problem) = (format!("id-{name}"), problem.map(str::to_owned));
        ExpectedContainer { id, name: name.into(), problem, started_unix_ms: Some(started) }
    }

    #[test]
    fn the_container_that_is_not_good_is_named_unless_it_is_ignored() {
        let found = [container("db", None, 1), container("web", Some("is not healthy yet"), 1)];
        assert_eq!(judge(&found, &[], &mut Runs::new()), ["container web is not healthy yet"]);
        assert!(judge(&found, &["web".into()], &mut Runs::new()).is_empty());
        let many: Vec<_> = (0..20).map(|n| container(&n.to_string(), Some("ended with code 1"), 1)).collect();
        assert_eq!(judge(&many, &[], &mut Runs::new()).last().unwrap(), "12 more containers not good");
    }

    #[test]
    fn a_container_that_is_started_again_and_again_is_never_good() {
        let mut runs = Runs::new();
        assert!(judge(&[container("web", None, 1)], &[], &mut runs).is_empty());
        assert!(judge(&[container("web", None, 1)], &[], &mut runs).is_empty());
        assert_eq!(judge(&[container("web", None, 2)], &[], &mut runs), ["container web was started again"]);
        assert!(judge(&[container("web", None, 2)], &[], &mut runs).is_empty());
    }

    /// A runtime that gives one answer.
    fn runtime(name: &str, answer: &'static [u8]) -> std::path::PathBuf {
        let socket = std::env::temp_dir().join(format!("keel-updater-api-{name}-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let count = stream.read(&mut request).unwrap();
            assert!(request[..count].starts_with(b"GET /keel/v1/containers HTTP/1.0\r\n"));
            // One that hangs up early is what some of the tests are about.
            let _ = stream.write_all(answer);
        });
        socket
    }

    #[test]
    fn a_runtime_is_asked_and_what_it_answers_is_not_believed_blindly() {
        let good = b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n[{\"id\":\"a\",\"name\":\"web\",\
            \"problem\":\"ended with code 1\",\"started_unix_ms\":5,\"later\":true}]\n";
        let wrong_of = |name: &str, answer| wrong(&runtime(name, answer), &[], &mut Runs::new()).join("; ");
        assert_eq!(wrong_of("good", good), "container web ended with code 1");
        assert_eq!(wrong_of("none", b"HTTP/1.0 200 OK\r\n\r\n[]"), "");
        for (name, answer) in [
            ("empty", &b""[..]),
            ("cut", b"HTTP/1.0 200 OK\r\n\r\n[{\"id\":\"a\","),
            ("down", b"HTTP/1.0 503 No\r\n\r\n{}"),
            ("other", b"SSH-2.0-x\r\n\r\n[]"),
        ] {
            assert!(wrong_of(name, answer).starts_with("containers not known (the runtime's answer "), "{name}");
        }
        let nobody = wrong(Path::new("/nonexistent/api.sock"), &[], &mut Runs::new());
        assert!(nobody[0].contains("/nonexistent/api.sock"), "{nobody:?}");
    }
}
