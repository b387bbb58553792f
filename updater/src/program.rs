//! The updater's process: finds out how the boot went, serves the bus, and watches a trial.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use crate::fallback::Next;
use crate::history::Keeper;
use crate::host::Host;
use crate::operations::{OfHost, Updater};
use crate::peers::server::{Patience, Server};
use crate::rollout::driver::Driver;
use crate::rollout::live::Live;
use crate::service::{OBJECT, Service};
use crate::{after_boot, trial};
use anyhow::{Context, Result};
use keel_link::{bus, control, logger};
use keel_spec::config::Settings;
use keel_spec::paths;

/// Stack of the thread that watches a trial: TLS handshakes of health checks run on it.
const TRIAL_STACK_BYTES: usize = 512 << 10;
/// Stack of the thread that keeps the history.
const HISTORY_STACK_BYTES: usize = 128 << 10;
/// Stack of the thread that updates by itself: whole installs run on it.
const ROLLOUT_STACK_BYTES: usize = 1 << 20;
/// Stack of the thread that takes the connections of peers.
const PEERS_STACK_BYTES: usize = 128 << 10;

/// The program: serves until it is ended. Exit code 1: it couldn't, and the log says why.
pub fn main() -> ExitCode {
    logger::init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut pid1 = control::Client::connect().context("connect to PID 1")?;
    let system = pid1.system().context("ask PID 1 for the machine's state")?;
    std::fs::create_dir_all(paths::UPDATER_STATE).context("make the updater's folder")?;
    let updater = Arc::new(Updater::open(Host::read()?, system.on_trial)?);
    let (next, keeper) = after_boot::run(&updater, &system)?;
    let history = Arc::new(keeper);
    let settings = bus::settings().context("ask for the machine config")?;
    updater.know_settings(&settings);
    if let Some(listen) = settings.update.serve {
        let updater = Arc::clone(&updater);
        spawn("peers", PEERS_STACK_BYTES, move || serve_peers(updater, listen))?;
    }
    let driver = Arc::new(Driver::open(Path::new(paths::UPDATER_STATE), &settings)?);
    watch(&updater, &history, next, settings)?;
    bus::block_on(async {
        let service = Service::new(updater, history, Arc::clone(&driver));
        let server = bus::serve(paths::UPDATER_BUS, OBJECT, service.clone()).await?;
        service.set_emitter(server.emitter());
        let live = Live { service, boot_id: system.boot_id };
        spawn("rollout", ROLLOUT_STACK_BYTES, move || {
            // Here, since a TPM may take its time and the boot waits for none.
            live.service.updater().proved().unwrap_or_else(|failure| log::error!("{failure}"));
            driver.run(&live)
        })?;
        pid1.ready().context("tell PID 1 that the updater is ready")?;
        server.run().await;
        Ok(())
    })
}

/// Serves the running release to other hosts, for as long as the process lives.
fn serve_peers(updater: Arc<Updater>, listen: SocketAddr) {
    let peers = OfHost::new(updater);
    // So that the log says at once what there is; it is looked for again whenever somebody asks.
    peers.offer();
    Server::new(Arc::new(peers), Patience::default()).run(listen);
}

/// Keeps the history of boots, and watches the trial if there is one.
fn watch(updater: &Arc<Updater>, history: &Arc<Keeper>, next: Next, settings: Settings) -> Result<()> {
    let keeper = Arc::clone(history);
    spawn("history", HISTORY_STACK_BYTES, move || keeper.run())?;
    if next == Next::Gate {
        let (updater, keeper) = (Arc::clone(updater), Arc::clone(history));
        spawn("trial", TRIAL_STACK_BYTES, move || trial::run(&updater, &keeper, &settings.health))?;
    }
    Ok(())
}

fn spawn(name: &str, stack_bytes: usize, work: impl FnOnce() + Send + 'static) -> Result<()> {
    let builder = std::thread::Builder::new().name(name.into()).stack_size(stack_bytes);
    builder.spawn(work).with_context(|| format!("start the thread {name}"))?;
    Ok(())
}
