//! Programs with a deadline.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, WaitOptions};

/// How long one call of a runtime may take; guests are emulated.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
/// Between two looks at a condition.
const STEP: Duration = Duration::from_millis(2);
/// Between two looks for orphans.
const REAP: Duration = Duration::from_millis(50);
/// Most that is read of a program's output.
const MAX_OUTPUT_BYTES: u64 = 4 << 20;

/// How a program ended and what it printed.
#[derive(Debug)]
pub(crate) struct Output {
    /// Exit code; 128 and the signal's number if a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs a command whose output goes to files, since what it starts may outlive it. `log` is the files' name without
/// ending.
pub(crate) fn run(command: &mut Command, log: &Path) -> Result<Output> {
    let (out, err) = (open(&log.with_extension("out"))?, open(&log.with_extension("err"))?);
    command.stdout(out.try_clone()?).stderr(err.try_clone()?);
    let child = spawn(command)?;
    let code = wait(child, DEADLINE).with_context(|| format!("{command:?}"))?;
    Ok(Output { code, stdout: text(out)?, stderr: text(err)? })
}

/// Processes that somebody here waits for. Others that end as this program's children are orphans, which it must reap:
/// the first process of a PID namespace can't end before all others are reaped.
static AWAITED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Starts a program that will be waited for.
pub(crate) fn spawn(command: &mut Command) -> Result<Child> {
    let mut awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    let child = command.spawn().with_context(|| format!("start {:?}", command.get_program()))?;
    awaited.insert(child.id());
    Ok(child)
}

/// Says that somebody will wait for this process.
pub(crate) fn will_wait_for(pid: u32) {
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

/// Reaps children that nobody waits for.
pub(crate) fn reap_orphans() {
    let awaited = AWAITED.lock().unwrap_or_else(PoisonError::into_inner);
    let own = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut words = rest.split(' ');
        if words.next() == Some("Z")
            && words.next() == Some(&own)
            && !awaited.contains(&pid)
            && let Some(pid) = Pid::from_raw(pid as i32)
        {
            let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
        }
    }
}

/// Waits for a program's end; kills it at the deadline.
pub(crate) fn wait(mut child: Child, limit: Duration) -> Result<i32> {
    let pid = Pid::from_raw(child.id() as i32).context("process ID 0")?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("open a pidfd")?;
    if !ends(&pidfd, limit)? {
        let _ = child.kill();
        let _ = child.wait();
        bail!("hasn't ended within {limit:?}");
    }
    let status = child.wait()?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Whether a process ends in time. Meanwhile orphans are reaped, which it may depend on.
pub(crate) fn ends(pidfd: impl AsFd, limit: Duration) -> Result<bool> {
    let begun = Instant::now();
    while begun.elapsed() < limit {
        if readable(&pidfd, REAP)? {
            return Ok(true);
        }
        reap_orphans();
    }
    Ok(false)
}

/// Whether the descriptor becomes readable in time.
pub(crate) fn readable(fd: impl AsFd, limit: Duration) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Waits until `look` finds something.
pub(crate) fn until<T>(what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let begun = Instant::now();
    let mut reaped = Instant::now();
    loop {
        if reaped.elapsed() > REAP {
            reap_orphans();
            reaped = Instant::now();
        }
        if let Some(found) = look()? {
            return Ok(found);
        }
        if begun.elapsed() > DEADLINE {
            bail!("waited {DEADLINE:?} in vain for {what}");
        }
        std::thread::sleep(STEP);
    }
}

/// No input, for programs that ask for none.
pub(crate) fn no_input() -> Stdio {
    Stdio::null()
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).append(true).create(true).open(path);
    let file = file.with_context(|| format!("create {}", path.display()))?;
    file.set_len(0)?;
    Ok(file)
}

fn text(mut file: File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
