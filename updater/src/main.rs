//! The updater's process: finds out how the boot went, serves the bus, and watches a trial.
#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use keel_link::{bus, control, logger};
use keel_spec::config::Settings;
use keel_spec::control::System;
use keel_spec::paths;
use keel_updater::fallback::{self, Boot, Next, Reason};
use keel_updater::host::{self, Host};
use keel_updater::operations::Updater;
use keel_updater::service::{OBJECT, Service};
use keel_updater::{pstore, trial};

/// Stack of the thread that watches a trial: TLS handshakes of health checks run on it.
const TRIAL_STACK_BYTES: usize = 512 << 10;

fn main() -> ExitCode {
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
    let next = after_boot(&updater, &system)?;
    let settings = bus::settings().context("ask for the machine config")?;
    updater.know_settings(&settings);
    if next == Next::Gate {
        watch_trial(Arc::clone(&updater), settings)?;
    }
    bus::block_on(async {
        let service = Service::new(updater);
        let server = bus::serve(paths::UPDATER_BUS, OBJECT, service.clone()).await?;
        service.set_emitter(server.emitter());
        pid1.ready().context("tell PID 1 that the updater is ready")?;
        server.run().await;
        Ok(())
    })
}

/// Takes note of how this boot came about.
fn after_boot(updater: &Updater, system: &System) -> Result<Next> {
    let panic = pstore::collect(Path::new(pstore::FOLDER), Path::new(paths::UPDATER_STATE)).unwrap_or_else(|error| {
        log::warn!("read the kernel's last words in {}: {error}", pstore::FOLDER);
        None
    });
    let evidence = panic.map(Reason::Panic).or(system.watchdog_reset.then_some(Reason::Hung));
    if let Some(reason) = &evidence {
        log::warn!("before this boot: {}", reason.text());
    }
    let ukis = updater.ukis();
    let before = updater.state().read();
    let boot = Boot {
        running: updater.running(),
        on_trial: system.on_trial,
        ukis: &ukis,
        evidence,
        now_unix_s: host::now_unix_s(),
    };
    let (after, next) = fallback::step(before.clone(), &boot);
    for bad in after.bad.iter().filter(|bad| !before.bad.contains(bad)) {
        log::error!("keel {} failed on this machine and is not installed again: {}", bad.version, bad.reason);
    }
    if after != before {
        updater.state().write(&after)?;
    }
    Ok(next)
}

fn watch_trial(updater: Arc<Updater>, settings: Settings) -> Result<()> {
    std::thread::Builder::new()
        .name("trial".into())
        .stack_size(TRIAL_STACK_BYTES)
        .spawn(move || trial::run(&updater, &settings.health))
        .context("start the thread that watches the trial")?;
    Ok(())
}
