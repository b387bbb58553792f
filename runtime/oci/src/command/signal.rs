//! `kill` and `delete`.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec};

use super::args::Args;
use super::record::{self, Container, Folder, Status};
use super::report::{self, Doing, Failure};
use super::{Result, place};
use crate::hooks::State;
use crate::spec::{NamespaceKind, Spec};
use crate::{cgroup, open_pidfd, rdt, signals};

/// How long a killed process may take to end.
const END_TIMEOUT_S: i64 = 10;

/// `kill`: a signal to the first process, or to all.
pub(super) fn kill(args: &Args) -> Result<u8> {
    args.at_most(2)?;
    let container = record::open(args, false)?;
    let word = args.operands.get(1).map_or("TERM".into(), |w| w.to_string_lossy());
    let number = signals::number(&word).ok_or_else(|| Failure::new(format!("unknown signal {word:?}")))?;
    let id = &container.record.id;
    // Where the first process is no process 1, others outlive it.
    let alone = container.spec().is_ok_and(|spec| spec.names(NamespaceKind::Pid));
    let whole = args.has("all") || !alone && number == libc::SIGKILL && container.record.cgroup.is_some();
    let Some(pidfd) = container.process()? else {
        // What is left of a stopped container can still be killed, as engines do before they delete one.
        if args.has("all") || whole && !container.pids().unwrap_or_default().is_empty() {
            all(&container, number)?;
            return Ok(0);
        }
        return Err(Failure::new(format!("cannot kill container {id}: container not running")));
    };
    if whole {
        all(&container, number)?;
    } else {
        signals::send(pidfd.as_fd(), number).doing(|| format!("send signal {number} to container {id}"))?;
    }
    Ok(0)
}

fn all(container: &Container, number: i32) -> Result<()> {
    if let Some(path) = container.record.cgroup.as_ref().filter(|_| number == libc::SIGKILL) {
        return Ok(cgroup::kill_all(path)?);
    }
    for pid in container.pids().unwrap_or_default() {
        // One may have ended since.
        if let Ok(pidfd) = open_pidfd(pid) {
            let _ = signals::send(pidfd.as_fd(), number);
        }
    }
    Ok(())
}

/// `delete`: what is left of a stopped container; one that was never started, or any with `--force`, is killed before.
pub(super) fn delete(args: &Args) -> Result<u8> {
    args.at_most(1)?;
    let id = args.id()?;
    let force = args.has("force");
    if force && !record::is_there(args, id) {
        // As others do: it is as good as deleted.
        return Ok(0);
    }
    let (folder, record) = match record::find(args, id, true)? {
        (folder, Ok(Some(record))) => (folder, record),
        // The lock is held, so nobody is creating it any more.
        (folder, Ok(None)) => return folder.remove().map(|()| 0),
        // What can't be understood could never be deleted otherwise.
        (folder, Err(_)) if force => return folder.remove().map(|()| 0),
        (_, Err(failure)) => return Err(failure),
    };
    let container = Container { folder, record };
    let status = container.status()?;
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(Failure::new(format!("cannot delete container {id} that is not stopped: {}", status.word())));
    }
    if let Some(pidfd) = container.process()? {
        let _ = signals::send(pidfd.as_fd(), libc::SIGKILL);
        ended(pidfd.as_fd()).doing(|| format!("kill container {id}"))?;
    }
    crate::steps::mark("read the record, see the end");
    let spec = container.spec();
    if let Ok(spec) = &spec {
        release_class(spec, id)?;
    }
    clear_away(&container.folder, container.record.cgroup.as_deref())?;
    if let Ok(spec) = spec {
        poststop(args, &spec, &State::json(&spec, id, &container.record.bundle, "stopped", 0));
    }
    Ok(0)
}

fn ended(pidfd: BorrowedFd<'_>) -> Result<()> {
    let timeout = Timespec { tv_sec: END_TIMEOUT_S, tv_nsec: 0 };
    match rustix::event::poll(&mut [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)], Some(&timeout))? {
        0 => Err(Failure::new(format!("it hasn't ended within {END_TIMEOUT_S} s of SIGKILL"))),
        _ => Ok(()),
    }
}

/// Removes cgroup and folder. Processes that share no process ID namespace with the first one outlive it: they go too.
pub(super) fn clear_away(folder: &Folder, cgroup: Option<&Path>) -> Result<()> {
    if let Some(path) = cgroup {
        cgroup::kill_all(path)?;
        cgroup::remove(path)?;
        place::remove_own_parent(path);
        crate::steps::mark("remove the cgroup");
    }
    let removed = folder.remove();
    crate::steps::mark("remove the folder");
    removed
}

/// Removes the container's own class of cache and memory bandwidth.
pub(super) fn release_class(spec: &Spec, id: &str) -> Result<()> {
    rdt::release(spec, id).doing(|| format!("remove what linux.intelRdt made for container {id}"))
}

/// Runs the hooks that come after the deletion; a failure is told and changes nothing (runtime.md, lifecycle step 13).
pub(super) fn poststop(args: &Args, spec: &Spec, state: &str) {
    let hooks = spec.hooks.iter().flat_map(|h| &h.poststop);
    for hook in hooks {
        if let Err(e) = crate::hooks::run("poststop", std::slice::from_ref(hook), state) {
            let source = std::error::Error::source(&e).map(ToString::to_string).unwrap_or_default();
            report::warn(args, &format!("{e}: {source}"));
        }
    }
}
