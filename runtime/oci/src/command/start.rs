//! `start`.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use super::Result;
use super::args::Args;
use super::record::{self, Status};
use super::report::{Doing, Failure};
use crate::hooks::State;
use crate::spec::Spec;

/// `start`: lets a created container execute its program.
pub(super) fn start(args: &Args) -> Result<u8> {
    args.at_most(1)?;
    let container = record::open(args, true)?;
    let id = &container.record.id;
    let status = container.status()?;
    if status != Status::Created {
        let problem = format!("cannot start container {id}: it is {}, not created", status.word());
        return Err(Failure::new(problem));
    }
    let spec = container.spec()?;
    let program = spec.process.args.first().map_or("", String::as_str);
    let pidfd = container.process()?;
    crate::start_at(&container.folder.start_socket(), program).map_err(|e| told(e, id, "start"))?;
    container.folder.started()?;
    if let Some(pidfd) = pidfd {
        poststart(&spec, id, Path::new(&container.record.bundle), container.record.pid, pidfd.as_fd())?;
    }
    Ok(0)
}

/// Runs the hooks that come after the start; if one fails, the container is stopped (runtime.md, lifecycle step 9).
pub(super) fn poststart(spec: &Spec, id: &str, bundle: &Path, pid: u32, pidfd: BorrowedFd<'_>) -> Result<()> {
    let Some(hooks) = spec.hooks.as_ref().filter(|h| !h.poststart.is_empty()) else { return Ok(()) };
    let state = State::json(spec, id, &bundle.to_string_lossy(), "running", pid);
    super::create::call("poststart", &hooks.poststart, &state).inspect_err(|_| {
        let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
    })
}

/// An error with the container it is about, and the exit codes that shells use for programs.
pub(super) fn told(error: crate::Error, id: &str, verb: &str) -> Failure {
    let code = match () {
        () if error.is_program_missing() => 127,
        () if error.is_program_refused() => 126,
        () => 1,
    };
    let failed: Result<()> = Err(Failure::from(error).exits(code));
    failed.doing(|| format!("{verb} container {id}")).err().unwrap_or_else(|| Failure::new(""))
}
