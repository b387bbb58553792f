//! Programs that a container's life calls (config.md, "POSIX-platform Hooks"). They are told the container's state on
//! standard input; the first one that fails ends the list.

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};

use crate::spec::{Hook, Spec};

/// Most hooks of one kind.
const MAX_HOOKS: usize = 128;
/// Most of what a hook may say on standard error for it to be told in an error.
const MAX_SAID: usize = 1024;

/// A container's state (runtime.md, "State").
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    /// Version of the specification.
    pub oci_version: &'a str,
    /// The container's ID.
    pub id: &'a str,
    /// `creating`, `created`, `running`, `paused`, `stopped`.
    pub status: &'a str,
    /// Its first process, as the host numbers it; 0: none.
    pub pid: u32,
    /// Its bundle's absolute path.
    pub bundle: &'a str,
    /// The configuration's annotations.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
}

impl<'a> State<'a> {
    /// The state as JSON, for hooks.
    pub fn json(spec: &'a Spec, id: &'a str, bundle: &'a str, status: &'a str, pid: u32) -> String {
        let oci_version = if spec.oci_version.is_empty() { crate::OCI_VERSION } else { &spec.oci_version };
        let state = Self { oci_version, id, status, pid, bundle, annotations: spec.annotations.clone() };
        // Strings and a number always serialise.
        serde_json::to_string(&state).unwrap_or_default()
    }
}

/// A hook that failed.
#[derive(Debug, thiserror::Error)]
#[error("error running {kind} hook #{number}: {path}")]
pub struct HookError {
    /// Which list it is in.
    pub kind: &'static str,
    /// Its place there, from 0.
    pub number: usize,
    /// The program.
    pub path: String,
    /// What it ended with.
    #[source]
    pub source: io::Error,
}

/// Runs hooks one after the other.
pub fn run(kind: &'static str, hooks: &[Hook], state: &str) -> Result<(), HookError> {
    for (number, hook) in hooks.iter().take(MAX_HOOKS).enumerate() {
        one(hook, state).map_err(|source| HookError { kind, number, path: hook.path.clone(), source })?;
    }
    Ok(())
}

fn one(hook: &Hook, state: &str) -> io::Result<()> {
    let mut command = Command::new(&hook.path);
    command.env_clear().envs(hook.env.iter().filter_map(|e| e.split_once('=')));
    if let Some((name, rest)) = hook.args.split_first() {
        command.arg0(name).args(rest);
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook needn't read it. A state is shorter than a pipe, so this doesn't wait.
        let _ = stdin.write_all(state.as_bytes());
    }
    let deadline = hook.timeout.filter(|s| *s > 0).map(|s| Instant::now() + Duration::from_secs(s as u64));
    let pidfd = Pid::from_raw(child.id() as i32).ok_or(io::ErrorKind::InvalidData)?;
    let pidfd = rustix::process::pidfd_open(pidfd, PidfdFlags::empty())?;
    let stderr = child.stderr.take();
    let (ended, said) = watch(&pidfd, stderr, deadline)?;
    if !ended {
        let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        let _ = child.wait();
        let seconds = hook.timeout.unwrap_or_default();
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("didn't end within {seconds} s: killed")));
    }
    let status = child.wait()?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    let said = said.trim_end();
    Err(io::Error::other(if said.is_empty() { status.to_string() } else { format!("{status}: {said}") }))
}

/// Reads what it says until it ends; whether that was in time.
fn watch(
    pidfd: &std::os::fd::OwnedFd,
    mut stderr: Option<std::process::ChildStderr>,
    deadline: Option<Instant>,
) -> io::Result<(bool, Vec<u8>)> {
    let mut said = Vec::new();
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let timeout = left.map(|l| Timespec { tv_sec: l.as_secs() as i64, tv_nsec: l.subsec_nanos().into() });
        let mut fds = vec![PollFd::new(pidfd, PollFlags::IN)];
        fds.extend(stderr.as_ref().map(|s| PollFd::new(s, PollFlags::IN)));
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(0) => return Ok((false, said)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let (ended, speaks) = (!fds[0].revents().is_empty(), fds.get(1).is_some_and(|f| !f.revents().is_empty()));
        drop(fds);
        if let Some(pipe) = stderr.as_ref().filter(|_| speaks) {
            let mut buffer = [0u8; 512];
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) | Err(_) => stderr = None,
                Ok(n) => said.extend(&buffer[..n.min(MAX_SAID.saturating_sub(said.len()))]),
            }
        } else if ended {
            return Ok((true, said));
        }
    }
}
