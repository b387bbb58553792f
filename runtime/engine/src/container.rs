//! One container in memory.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cancel::Bells;
use crate::disk::{Config, Phase, State, save};
use crate::error::Error;
use crate::health::Health;
use crate::log::writer::Log;
use crate::parent::InitLink;
use crate::plan::logging::logging;
use crate::restart::Backoff;
use crate::stdin::Stdin;

/// One container. Locks are taken in the order of the fields: `gate`, then `config`, `state`, `live`.
pub struct Container {
    /// Its ID.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Held over each change of its life, so that two never interleave. Never while waiting for its end.
    pub gate: Mutex<()>,
    config: Mutex<Arc<Config>>,
    state: Mutex<State>,
    live: Mutex<Live>,
    /// Rung at every change.
    pub bells: Bells,
    /// Its output.
    pub log: Arc<Log>,
    /// Its input.
    pub stdin: Arc<Stdin>,
}

/// What is known in memory only.
#[derive(Default)]
pub struct Live {
    /// The first process while it runs.
    pub pidfd: Option<Arc<OwnedFd>>,
    /// The master end of its terminal while it runs, if it has one.
    pub terminal: Option<Arc<OwnedFd>>,
    /// Its health, if that is checked.
    pub health: Option<Health>,
    /// The restart policy's memory.
    pub backoff: Backoff,
    /// Runs that ended since the engine was opened.
    pub exits: u64,
    /// It is gone.
    pub removed: bool,
}

/// Name under which PID 1 keeps the write end of a container's input.
pub fn stdin_name(id: &str) -> String {
    format!("{id}-stdin")
}

impl Container {
    /// From what is on disk; its folder exists.
    pub fn open(folder: &Path, config: Config, state: State, link: &Arc<dyn InitLink>) -> Result<Arc<Self>, Error> {
        let id = config.id.clone();
        // What was accepted once is served, whatever this release thinks of it.
        let keep = logging(&config.body).map(|logging| logging.keep).unwrap_or_default();
        let log = Log::new(folder, keep);
        let (link, stored) = (link.clone(), stdin_name(&id));
        let forget_pipe = move || {
            if let Err(error) = link.drop_fds(&stored) {
                ::log::error!("{stored}: {}", error.chain());
            }
        };
        let once = config.body.stdin_once == Some(true);
        Ok(Arc::new(Self {
            id,
            folder: folder.into(),
            gate: Mutex::new(()),
            config: Mutex::new(Arc::new(config)),
            state: Mutex::new(state),
            live: Mutex::default(),
            bells: Bells::default(),
            log: Arc::new(log),
            stdin: Arc::new(Stdin::new(once, forget_pipe)),
        }))
    }

    /// Takes the gate.
    pub fn enter(&self) -> MutexGuard<'_, ()> {
        lock(&self.gate)
    }

    /// What was asked for.
    pub fn config(&self) -> Arc<Config> {
        lock(&self.config).clone()
    }

    /// A copy of its state.
    pub fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// What is known in memory only.
    pub fn live(&self) -> MutexGuard<'_, Live> {
        lock(&self.live)
    }

    /// Changes the state, durably, and wakes those who wait. In memory it changes even if the disk refuses.
    pub fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), Error> {
        let mut state = lock(&self.state);
        change(&mut state);
        let result = save(&self.folder.join("state.json"), &*state);
        drop(state);
        self.bells.ring();
        result
    }

    /// The same where a failure of the disk must not stop what is under way; it is logged.
    pub fn note(&self, change: impl FnOnce(&mut State)) {
        if let Err(error) = self.update(change) {
            ::log::error!("container {}: its state is not durable: {}", self.id, error.chain());
        }
    }

    /// Replaces what was asked for, durably.
    pub fn set_config(&self, config: Config) -> Result<(), Error> {
        save(&self.folder.join("config.json"), &config)?;
        *lock(&self.config) = Arc::new(config);
        Ok(())
    }

    /// Whether it is removed once it has ended.
    pub fn auto_remove(&self) -> bool {
        self.config().body.host_config.as_ref().is_some_and(|host| host.auto_remove == Some(true))
    }

    /// Whether it runs, or is about to again.
    pub fn is_up(&self) -> bool {
        matches!(self.state().phase, Phase::Running | Phase::Restarting)
    }

    /// Whether it is on its way from nothing to running, or runs.
    pub fn is_active(&self) -> bool {
        matches!(self.state().phase, Phase::Running | Phase::Starting | Phase::Restarting)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
