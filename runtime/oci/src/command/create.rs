//! `create` and `run`.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::args::Args;
use super::bundle::{self, Bundle};
use super::record::{self, Folder, Record};
use super::report::{Doing, Failure};
use super::{Result, clock, console, notify, place, report, rootless, start, wait};
use crate::hooks::{self, State};
use crate::spec::ConsoleSize;
use crate::{Create, Created, Extras, Parent, caps, create_with, steps};

/// `create`: up to where `start` goes on.
pub(super) fn create(args: &Args) -> Result<u8> {
    args.at_most(1)?;
    let id = args.id()?;
    let mut bundle = bundle::load(args)?;
    steps::mark("read the bundle");
    if bundle.spec.process.terminal != args.has("console-socket") {
        return Err(Failure::new(if bundle.spec.process.terminal {
            "process.terminal needs --console-socket, which the terminal is sent to"
        } else {
            "--console-socket is for a process with a terminal, and process.terminal is false"
        }));
    }
    rootless::enter(&mut bundle.spec)?;
    let made = make(args, id, &bundle, true)?;
    made.created.leave();
    Ok(0)
}

/// `run`: create, start and, unless detached, wait and delete.
pub(super) fn run(args: &Args) -> Result<u8> {
    args.at_most(1)?;
    let id = args.id()?;
    let mut bundle = bundle::load(args)?;
    let terminal = bundle.spec.process.terminal;
    let relayed = terminal && !args.has("console-socket");
    if relayed && args.has("detach") {
        return Err(Failure::new("process.terminal with --detach needs --console-socket"));
    }
    if relayed && bundle.spec.process.console_size.is_none() {
        bundle.spec.process.console_size = console::own_size();
    }
    rootless::enter(&mut bundle.spec)?;
    // Signals that come from here on are the container's.
    let signals = if args.has("detach") { None } else { Some(wait::Signals::block()?) };
    let Made { created, folder, cgroup } = make(args, id, &bundle, false)?;
    let pidfd = created.pidfd().try_clone_to_owned();
    let code = lead(id, &bundle, created, &folder, signals);
    let ended = !args.has("detach") && !args.has("keep");
    if code.is_err() || ended {
        // Reaped or killed by now, so that its folders can go.
        if let Ok(pidfd) = pidfd {
            let _ = rustix::process::pidfd_send_signal(&pidfd, rustix::process::Signal::KILL);
            let _ = wait::reap(pidfd.as_fd());
        }
        super::signal::release_class(&bundle.spec, id)?;
        super::signal::clear_away(&folder, cgroup.as_deref())?;
        let state = State::json(&bundle.spec, id, &bundle.path.to_string_lossy(), "stopped", 0);
        super::signal::poststop(args, &bundle.spec, &state);
    }
    code
}

/// Starts it; with `signals`, waits for its end, which is what it returns.
fn lead(
    id: &str,
    bundle: &Bundle,
    mut created: Created,
    folder: &Folder,
    signals: Option<wait::Signals>,
) -> Result<u8> {
    let pid = created.pid();
    let pidfd = created.pidfd().try_clone_to_owned().doing(|| "copy a pidfd".into())?;
    let relay = created.take_terminal().map(console::Relay::new).transpose()?;
    let proxy = notify::Proxy::listen(folder, pid)?;
    created.start()?;
    start::poststart(&bundle.spec, id, &bundle.path, pid)?;
    match (signals, proxy) {
        (Some(signals), proxy) => wait::until_end(pidfd.as_fd(), &signals, relay, proxy),
        (None, Some(proxy)) => proxy.until_ready(pidfd.as_fd()).map(|()| 0),
        (None, None) => Ok(0),
    }
}

/// A container that waits, recorded.
struct Made {
    created: Created,
    folder: Folder,
    cgroup: Option<PathBuf>,
}

/// Removes what is left of a container that nothing came of. Its process and its cgroup are gone by then.
struct Undo<'a> {
    folder: Option<&'a Folder>,
    cgroup: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    args: &'a Args,
    id: &'a str,
    bundle: &'a Bundle,
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if let Some(folder) = self.folder {
            // The error that led here is the one to tell.
            let _ = folder.remove();
            if let Some(path) = &self.pid_file {
                let _ = std::fs::remove_file(path);
            }
            if let Some(path) = &self.cgroup {
                place::remove_own_parent(path);
            }
            let (spec, path) = (&self.bundle.spec, self.bundle.path.to_string_lossy());
            super::signal::poststop(self.args, spec, &State::json(spec, self.id, &path, "stopped", 0));
        }
    }
}

fn make(args: &Args, id: &str, bundle: &Bundle, waits: bool) -> Result<Made> {
    let folder = Folder::make(&record::root(args), id)?;
    let mut undo = Undo { folder: Some(&folder), cgroup: None, pid_file: None, args, id, bundle };
    steps::mark("make the folder");
    let cgroup = place::cgroup(args, &bundle.spec, id)?;
    undo.cgroup.clone_from(&cgroup);
    let rootfs = bundle.mount()?;
    let extras = Extras {
        bundle: Some(&bundle.path),
        listener: waits.then(|| listen(&folder)).transpose()?,
        preserved: preserved(args)?,
        no_new_keyring: args.has("no-new-keyring"),
        no_pivot: args.has("no-pivot"),
    };
    let mut spec = std::borrow::Cow::Borrowed(&bundle.spec);
    if listened_for() > 0 {
        let env = [format!("LISTEN_FDS={}", listened_for()), "LISTEN_PID=1".into()];
        spec.to_mut().process.env.extend(env);
    }
    if notify::wanted() {
        notify::prepare(&folder, spec.to_mut())?;
    }
    for name in spec.process.capabilities.iter().flat_map(caps::unknown) {
        report::warn(args, &format!("process.capabilities: {name:?} isn't known, and so not given"));
    }
    let [stdin, stdout, stderr] = stdio()?;
    let mut created = create_with(
        Create {
            id,
            spec: &spec,
            rootfs: rootfs.as_fd(),
            stdin,
            stdout,
            stderr,
            cgroup: cgroup.as_deref(),
            parent: Parent::Caller,
            init: None,
        },
        extras,
    )
    .map_err(|e| start::told(e, id, "create"))?;
    if let Some(path) = args.path("console-socket") {
        let terminal = created.take_terminal().ok_or_else(|| Failure::new("the container gave no terminal"))?;
        console::send(&path, terminal.as_fd())?;
    }
    if let Some(path) = args.path("pid-file") {
        write_pid(&path, created.pid())?;
        undo.pid_file = Some(path);
    }
    folder.write(&Record {
        oci_version: bundle.spec.oci_version.clone(),
        id: id.into(),
        pid: created.pid(),
        born: record::born(created.pid())?.ok_or_else(|| Failure::new("the container's process ended early"))?,
        bundle: bundle.path.to_string_lossy().into_owned(),
        rootfs: bundle.rootfs.to_string_lossy().into_owned(),
        created_ns: clock::now_ns(),
        owner_uid: bundle.owner_uid,
        cgroup: cgroup.clone(),
        config: bundle.config.clone(),
    })?;
    steps::mark("write the record");
    undo.folder = None;
    drop(undo);
    Ok(Made { created, folder, cgroup })
}

fn listen(folder: &Folder) -> Result<OwnedFd> {
    let step = || format!("listen for the start in {}", folder.path.display());
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.doing(step)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(folder.start_socket()).doing(step)?).doing(step)?;
    rustix::net::listen(&socket, 1).doing(step)?;
    Ok(socket)
}

/// Copies of this process's standard streams.
pub(super) fn stdio() -> Result<[OwnedFd; 3]> {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().doing(|| format!("copy descriptor {}", fd.as_raw_fd()));
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    Ok([copy(stdin.as_fd())?, copy(stdout.as_fd())?, copy(stderr.as_fd())?])
}

/// How many listening sockets this process was given to pass on (sd_listen_fds(3)).
pub(super) fn listened_for() -> usize {
    std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse().ok()).filter(|n| *n <= 128).unwrap_or(0)
}

/// Descriptors that the process keeps: those listened on, and `--preserve-fds` more.
pub(super) fn preserved(args: &Args) -> Result<Vec<OwnedFd>> {
    let asked = args.number::<usize>("preserve-fds")?.unwrap_or(0);
    if asked > 128 {
        return Err(Failure::new(format!("--preserve-fds {asked}: at most 128")));
    }
    let copy = |at: usize| crate::copy_descriptor(3 + at as i32);
    // The variable alone, without descriptors, is no error to other runtimes.
    let mut copies: Vec<OwnedFd> = (0..listened_for()).map_while(|at| copy(at).ok()).collect();
    for at in listened_for()..listened_for() + asked {
        copies.push(copy(at).doing(|| format!("preserve descriptor {}", 3 + at))?);
    }
    Ok(copies)
}

/// Whole or not at all: engines wait for the file to appear.
pub(super) fn write_pid(path: &Path, pid: u32) -> Result<()> {
    let step = || format!("write {}", path.display());
    let name = path.file_name().ok_or_else(|| Failure::new(format!("--pid-file {path:?} isn't a file name")))?;
    let temporary = path.with_file_name(format!(".{}", name.to_string_lossy()));
    let written = std::fs::write(&temporary, pid.to_string()).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    written.doing(step)
}

/// A terminal's size in the configuration's words.
pub(super) fn size(rows: u16, columns: u16) -> ConsoleSize {
    ConsoleSize { height: rows.into(), width: columns.into() }
}

/// Runs hooks of the host's.
pub(super) fn call(kind: &'static str, list: &[crate::spec::Hook], state: &str) -> Result<()> {
    Ok(hooks::run(kind, list, state)?)
}
