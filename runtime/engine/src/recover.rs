//! What the engine does when it starts: it compares what is on disk with what PID 1 says, and makes both agree.
//!
//! | on disk | PID 1 | then |
//! | --- | --- | --- |
//! | running | alive | taken over: its pipes are read on |
//! | running | ended | recorded, with the output that waited in its pipes |
//! | running | unknown, same boot | recorded as ended with 255; its restart policy decides |
//! | any, other boot | unknown | recorded as ended; started again as its policy says for a boot |
//! | starting | any | killed and cleared away |
//! | removing | any | removed |
//! | nothing | alive | killed and forgotten |
//!
//! Starts and removals are only scheduled here, so that opening the engine never waits for them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use std::{fs, io};

use keel_durable::Stored;
use keel_spec::control::{Adopted, Exit, LISTENER_PREFIX};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::clock;
use crate::container::{Container, stdin_name};
use crate::declared::drive::is_declared;
use crate::disk::{Config, Phase, State, load};
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::exec::is_exec;
use crate::id;
use crate::remove::{REMOVED, remove_all};
use crate::restart::{self, Policy};
use crate::schedule::Job;
use crate::start::Ours;
use crate::transit::{self, Transit};

/// Exit code of a run whose own was lost.
const LOST: i32 = 255;

/// See the module.
pub fn recover(engine: &Arc<Engine>, transit: &Transit) -> Result<(), Error> {
    let adopted: HashMap<String, Adopted> =
        engine.link.adopted()?.into_iter().map(|adopted| (adopted.id.clone(), adopted)).collect();
    read_folders(engine)?;
    redo_output(engine, transit).doing(|| "reading what was on its way to a log")?;
    // Further processes go on in their containers; PID 1 is told to forget them when they have ended.
    adopted.values().filter(|adopted| is_exec(&adopted.id)).for_each(|adopted| engine.exec_exited(adopted));
    for stranger in adopted.values().filter(|adopted| engine.get(&adopted.id).is_none() && !is_exec(&adopted.id)) {
        ::log::warn!("container {}: it runs but is not known here; ended", stranger.id);
        kill(stranger);
        report(&stranger.id, engine.link.forget(&stranger.id));
    }
    for container in engine.all() {
        let _gate = container.enter();
        recover_one(engine, &container, adopted.get(&container.id));
    }
    let running: Vec<String> =
        engine.all().into_iter().filter(|c| c.state().is_running()).map(|c| c.id.clone()).collect();
    if engine.network.is_possible() && !running.is_empty() {
        engine.network.get_with(&engine.namespaces())?;
    }
    remove_strangers(engine, &running);
    Ok(())
}

/// Reads all containers' folders. One that can't be understood is left where it is, or removed if it was never whole.
fn read_folders(engine: &Arc<Engine>) -> Result<(), Error> {
    let folder = engine.containers_folder();
    let listing = || format!("listing {}", folder.display());
    for entry in fs::read_dir(&folder).doing(listing)? {
        let path = entry.doing(listing)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(REMOVED) {
            report(name, remove_all(&path).doing(|| format!("removing {}", path.display())));
        } else if !id::is_id(name) {
            ::log::warn!("{}: not a container; left alone", path.display());
        } else if let Err(error) = read_folder(engine, name, &path) {
            ::log::error!("container {name}: left out: {}", error.chain());
        }
    }
    Ok(())
}

fn read_folder(engine: &Arc<Engine>, name: &str, path: &Path) -> Result<(), Error> {
    let config = match load::<Config>(&path.join("config.json"))? {
        Stored::Value(config) if config.id == name => config,
        Stored::Value(_) => {
            return Err(Error::internal(format!("reading {}", path.display()), "it names another container"));
        }
        Stored::Absent if !path.join("config.json.unreadable").exists() => {
            ::log::warn!("container {name}: it was never wholly created; removed");
            return remove_all(path).doing(|| format!("removing {}", path.display()));
        }
        Stored::Absent | Stored::Damaged => {
            return Err(Error::internal(format!("reading {}", path.display()), "its config.json is not usable"));
        }
    };
    let lost =
        || State { phase: Phase::Exited, exit_code: LOST, error: "its state was lost".into(), ..State::default() };
    let state = load(&path.join("state.json"))?.value().unwrap_or_else(lost);
    let container = Container::open(path, config, state, &engine.link)?;
    engine.table().insert(container.id.clone(), container);
    Ok(())
}

/// Brings what was on its way from a pipe to a log there; before anything is read from pipes.
fn redo_output(engine: &Arc<Engine>, transit: &Transit) -> io::Result<()> {
    if let Some((place, data)) = transit.left()?
        && let Some(container) = engine.get(&place.id)
    {
        container.log.redo(place.at, place.stream, place.unix_ns, &data);
    }
    Ok(transit.clear()?)
}

/// Makes one container's state agree with what PID 1 says; the caller holds the gate.
fn recover_one(engine: &Arc<Engine>, container: &Arc<Container>, adopted: Option<&Adopted>) {
    let state = container.state();
    let same_boot = state.boot_id == engine.boot_id;
    match (state.phase, adopted) {
        (Phase::Removing, _) => {
            adopted.inspect(|adopted| kill(adopted));
            engine.schedule.add(Instant::now(), Job::Remove(container.id.clone()));
        }
        (Phase::Starting, _) => {
            adopted.inspect(|adopted| kill(adopted));
            engine.clear_away(container);
            container.note(|state| {
                state.phase = Phase::Exited;
                state.pid = None;
                state.exit_code = LOST;
                state.error = "the engine ended while it was being started".into();
            });
            if same_boot {
                engine.plan_restart(container, LOST, 0);
            } else {
                start_at_boot(engine, container, state.user_stopped);
            }
        }
        (Phase::Running, Some(adopted)) => take_over(engine, container, adopted),
        (Phase::Running, None) => {
            let at_unix_ms = clock::unix_ms();
            if same_boot {
                engine.run_ended(container, Exit { code: LOST, at_unix_ms });
            } else {
                container.note(|state| {
                    state.phase = Phase::Exited;
                    state.pid = None;
                    state.networks = None;
                    state.exit_code = LOST;
                    state.finished_unix_ms = Some(at_unix_ms);
                });
                let host = container.config().body.host_config.clone();
                if host.is_some_and(|host| host.auto_remove == Some(true)) {
                    engine.schedule.add(Instant::now(), Job::Remove(container.id.clone()));
                } else {
                    start_at_boot(engine, container, state.user_stopped);
                }
            }
        }
        // Its end had been recorded; PID 1 had not been told to forget it yet.
        (_, Some(adopted)) => {
            kill(adopted);
            engine.clear_away(container);
            if state.phase == Phase::Restarting {
                engine.schedule.add(Instant::now(), Job::Start(container.id.clone()));
            }
        }
        (Phase::Restarting, None) => engine.schedule.add(Instant::now(), Job::Start(container.id.clone())),
        (Phase::Exited, None) if !same_boot => start_at_boot(engine, container, state.user_stopped),
        (Phase::Created | Phase::Exited, None) => {}
    }
}

/// Goes on serving one that ran while the engine was away.
fn take_over(engine: &Arc<Engine>, container: &Arc<Container>, adopted: &Adopted) {
    let id = container.id.as_str();
    container.note(|state| state.pid = Some(adopted.pid));
    if adopted.exit.is_none()
        && let Some(pidfd) = open_process(adopted.pid)
    {
        container.live().pidfd = Some(Arc::new(pidfd));
    }
    container.log.begin_run();
    let stdin = engine.link.fetch_fds(&stdin_name(id)).ok().and_then(|fds| fds.into_iter().next());
    match engine.link.fetch_fds(id).map(|fds| Ours::restored(stdin, fds)) {
        Ok(Some(ours)) => report(id, engine.connect_output(container, ours)),
        Ok(None) => ::log::error!("container {id}: PID 1 keeps other descriptors than its pipes; output is lost"),
        Err(error) => ::log::error!("container {id}: its output is lost: {}", error.chain()),
    }
    match adopted.exit {
        Some(exit) => engine.run_ended(container, exit),
        None => {
            ::log::info!("container {id}: still runs as process {}", adopted.pid);
            // What was known of its health is gone, so it is asked at once.
            engine.watch_health(container, Some(std::time::Duration::ZERO));
        }
    }
}

/// After a boot: waits for its start if its policy says so.
fn start_at_boot(engine: &Arc<Engine>, container: &Arc<Container>, user_stopped: bool) {
    let config = container.config();
    let asked = config.body.host_config.as_ref().and_then(|host| host.restart_policy.as_ref());
    let policy = Policy::new(asked).unwrap_or(Policy::No);
    // What is declared starts when what it depends on is there.
    let later = engine.options.declares && is_declared(container);
    if restart::at_boot(policy, user_stopped) && !later {
        container.note(|state| state.phase = Phase::Restarting);
        engine.schedule.add(Instant::now(), Job::Start(container.id.clone()));
    }
}

/// Clears away what belongs to no container that runs: descriptors, cgroups.
fn remove_strangers(engine: &Arc<Engine>, running: &[String]) {
    match engine.link.list_fds() {
        Ok(names) => {
            let known = |name: &String| {
                name == transit::NAME
                    || name.starts_with(LISTENER_PREFIX)
                    || running.iter().any(|id| name == id || *name == stdin_name(id))
            };
            for name in names.iter().filter(|name| !known(name)) {
                report(name, engine.link.drop_fds(name));
            }
        }
        Err(error) => ::log::error!("{}", error.chain()),
    }
    engine.sweep_cgroups(running);
}

/// The process as a descriptor. PID 1 reaps as soon as it can, so the ID is right only while PID 1 calls it alive;
/// that it had just ended and its ID been given anew between two calls is left aside, IDs being given in turn.
fn open_process(pid: u32) -> Option<std::os::fd::OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn kill(adopted: &Adopted) {
    if adopted.exit.is_none()
        && let Some(process) = open_process(adopted.pid)
    {
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
}

/// Logs what failed.
pub(crate) fn report(id: &str, result: Result<(), Error>) {
    if let Err(error) = result {
        ::log::error!("container {id}: {}", error.chain());
    }
}
