//! `start`.

use std::os::fd::AsFd;
use std::path::Path;

use super::args::Args;
use super::record::{self, Status};
use super::report::{Doing, Failure};
use super::{Result, notify};
use crate::hooks::State;
use crate::spec::Spec;

/// `start`: lets a created container execute its program.
pub(super) fn start(args: &Args) -> Result<u8> {
    args.at_most(1)?;
    let container = record::open(args, true)?;
    let id = &container.record.id;
    let problem = match container.status()? {
        Status::Created => None,
        Status::Running => Some("cannot start an already running container"),
        Status::Paused => Some("cannot start a paused container"),
        Status::Stopped => Some("cannot start a container that has stopped"),
    };
    if let Some(problem) = problem {
        return Err(Failure::new(format!("container {id}: {problem}")));
    }
    let spec = container.spec()?;
    let program = spec.process.args.first().map_or("", String::as_str);
    let waited = match notify::Proxy::listen(&container.folder, container.record.pid)? {
        Some(proxy) => container.process()?.map(|process| (proxy, process)),
        None => None,
    };
    crate::steps::mark("read the record");
    crate::start_at(&container.folder.start_socket(), program).map_err(|e| told(e, id, "start"))?;
    crate::steps::mark("execute the program");
    container.folder.started()?;
    poststart(&spec, id, Path::new(&container.record.bundle), container.record.pid)?;
    // Whoever wants to delete it meanwhile needs its lock.
    drop(container);
    match waited {
        Some((proxy, process)) => proxy.until_ready(process.as_fd()).map(|()| 0),
        None => Ok(0),
    }
}

/// Runs the hooks that come after the start. One that fails changes nothing for the others or for the container, which
/// runs already; it is told by the command's failing (runtime.md, lifecycle).
pub(super) fn poststart(spec: &Spec, id: &str, bundle: &Path, pid: u32) -> Result<()> {
    let Some(hooks) = spec.hooks.as_ref().filter(|h| !h.poststart.is_empty()) else { return Ok(()) };
    let state = State::json(spec, id, &bundle.to_string_lossy(), "running", pid);
    let mut first = Ok(());
    for hook in &hooks.poststart {
        first = first.and(super::create::call("poststart", std::slice::from_ref(hook), &state));
    }
    first
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
