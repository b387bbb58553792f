//! `exec`.

use std::os::fd::AsFd;
use std::path::Path;

use super::args::Args;
use super::record::{self, Container, Status};
use super::report::{Doing, Failure};
use super::{Result, bundle, console, create, place, rootless, wait};
use crate::spec::{Capabilities, Process, Spec};
use crate::{Exec, Extras, Parent, exec_with};

/// What engines know a failure to execute by.
const FAILED: u8 = 255;

/// `exec`: a further process in a running container.
pub(super) fn exec(args: &Args) -> Result<u8> {
    let container = record::open(args, false)?;
    let id = container.record.id.clone();
    run(args, &container).doing(|| format!("exec in container {id}")).map_err(|f| f.exits(FAILED))
}

fn run(args: &Args, container: &Container) -> Result<u8> {
    let stopped = || Failure::new("cannot exec in a stopped container");
    let pidfd = container.process()?.ok_or_else(stopped)?;
    match container.status()? {
        Status::Stopped => return Err(stopped()),
        Status::Paused if !args.has("ignore-paused") => {
            return Err(Failure::new("cannot exec in a paused container (use --ignore-paused to override)"));
        }
        _ => {}
    }
    let mut spec = container.spec()?;
    let mut process = process(args, &spec)?;
    let socket = args.path("console-socket");
    if socket.is_some() && !process.terminal {
        return Err(Failure::new("--console-socket is for a process with a terminal"));
    }
    if process.terminal && socket.is_none() {
        if args.has("detach") {
            return Err(Failure::new("a terminal with --detach needs --console-socket"));
        }
        process.console_size = process.console_size.or_else(console::own_size);
    }
    let cgroup = cgroup(args, container)?;
    rootless::join(pidfd.as_fd(), &mut spec)?;
    let signals = if args.has("detach") { None } else { Some(wait::Signals::block()?) };
    let [stdin, stdout, stderr] = create::stdio()?;
    let extras = Extras {
        preserved: create::preserved(args)?,
        // A further process is in the same session keyring as those before it, if anything: none of the host's.
        ..Extras::default()
    };
    let mut created = exec_with(
        Exec {
            id: &container.record.id,
            spec: &spec,
            container: pidfd.as_fd(),
            process: &process,
            stdin,
            stdout,
            stderr,
            cgroup: cgroup.as_deref(),
            parent: Parent::Caller,
            init: None,
        },
        extras,
    )?;
    let terminal = created.take_terminal();
    let relay = match (terminal, &socket) {
        (Some(terminal), Some(path)) => {
            console::send(path, terminal.as_fd())?;
            None
        }
        (Some(terminal), None) => Some(console::Relay::new(terminal)?),
        (None, _) => None,
    };
    if let Some(path) = args.path("pid-file") {
        create::write_pid(&path, created.pid())?;
    }
    let pidfd = created.pidfd().try_clone_to_owned()?;
    created.start()?;
    match signals {
        Some(signals) => wait::until_end(pidfd.as_fd(), &signals, relay, None),
        None => Ok(0),
    }
}

/// From a file, or from the container's own with what the options change.
fn process(args: &Args, spec: &Spec) -> Result<Process> {
    if let Some(path) = args.path("process") {
        let bytes = std::fs::read(&path).doing(|| format!("read {}", path.display()))?;
        let mut process: Process = bundle::parse(&bytes, &path.display().to_string())?;
        process.terminal |= args.has("tty");
        if process.cwd.is_empty() {
            process.cwd.clone_from(&spec.process.cwd);
        }
        // A file that doesn't speak of them is no way to less confinement than the container's.
        let own = &spec.process;
        process.apparmor_profile = process.apparmor_profile.or_else(|| own.apparmor_profile.clone());
        process.selinux_label = process.selinux_label.or_else(|| own.selinux_label.clone());
        return Ok(process);
    }
    let mut process = spec.process.clone();
    process.args = args.operands[1..].iter().map(|w| w.to_string_lossy().into_owned()).collect();
    if process.args.is_empty() {
        return Err(Failure::new("the command to execute is missing (or give --process FILE)"));
    }
    process.terminal = args.has("tty");
    process.console_size = None;
    process.env.extend(args.texts("env")?);
    if let Some(cwd) = args.text("cwd")? {
        process.cwd = cwd.into();
    }
    if let Some(user) = args.text("user")? {
        let wrong = |_| Failure::new(format!("--user {user:?}: UID or UID:GID, in numbers"));
        let (uid, gid) = user.split_once(':').map_or((user, None), |(u, g)| (u, Some(g)));
        process.user.uid = uid.parse().map_err(wrong)?;
        process.user.gid = gid.map(str::parse).transpose().map_err(wrong)?.unwrap_or(process.user.gid);
    }
    for gid in args.texts("additional-gids")? {
        let wrong = |_| Failure::new(format!("--additional-gids {gid:?} isn't a number"));
        process.user.additional_gids.push(gid.parse().map_err(wrong)?);
    }
    let added = args.texts("cap")?;
    if !added.is_empty() {
        add(process.capabilities.get_or_insert_default(), &added);
    }
    process.no_new_privileges |= args.has("no-new-privs");
    process.apparmor_profile = args.text("apparmor")?.map(str::to_owned).or(process.apparmor_profile);
    process.selinux_label = args.text("process-label")?.map(str::to_owned).or(process.selinux_label);
    Ok(process)
}

/// Adds to the sets that a program started by root or by another user gets them from.
fn add(sets: &mut Capabilities, added: &[String]) {
    let named = |c: &String| if c.starts_with("CAP_") { c.clone() } else { format!("CAP_{}", c.to_uppercase()) };
    let ambient = !sets.ambient.is_empty();
    let inheritable = ambient.then_some([&mut sets.inheritable, &mut sets.ambient]);
    let lists = [&mut sets.bounding, &mut sets.effective, &mut sets.permitted];
    for list in lists.into_iter().chain(inheritable.into_iter().flatten()) {
        list.extend(added.iter().map(named));
    }
}

/// The container's cgroup, or `--cgroup` below it.
fn cgroup(args: &Args, container: &Container) -> Result<Option<std::path::PathBuf>> {
    let below = args.text("cgroup")?;
    let Some(own) = &container.record.cgroup else {
        return match below {
            None | Some("" | "/") => Ok(None),
            Some(path) => Err(Failure::new(format!("--cgroup {path:?}: the container has no cgroup"))),
        };
    };
    // Version 1's form names controllers, too.
    let below = below.map(|path| path.rsplit_once(':').map_or(path, |(_, path)| path));
    let path = match below {
        None => place::of_a_further_process(own, container.record.pid),
        Some(path) => place::below(own, path).doing(|| "bad sub cgroup path".into())?,
    };
    if Path::new(&path).is_dir() {
        Ok(Some(path))
    } else {
        Err(Failure::new(format!("--cgroup: {} isn't there", path.display())))
    }
}
