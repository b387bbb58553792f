//! The engine itself, its start and what it knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fs, io};

use bollard_stubs::models::ContainerCreateBody;
use keel_spec::config::Settings;
use keel_spec::paths;
use keel_store::{ImageId, Store};
use keel_volumes::Volumes;

use crate::cancel::Bells;
use crate::container::Container;
use crate::disk::State;
use crate::error::{Doing, Error};
use crate::events::Events;
use crate::exec::Execs;
use crate::network::Network;
use crate::parent::{InitLink, Local, Pid1};
use crate::schedule::Schedule;
use crate::stdio::Stdio;
use crate::transit::Transit;
use crate::{Cancel, declared, recover, watch};

/// What may differ between a host and a workstation.
#[derive(Clone, Debug)]
pub struct Options {
    /// cgroup v2 folder that gets a child for each container, or for its parent; `None`: no cgroups (tests).
    pub cgroups: Option<PathBuf>,
    /// Whether containers get a network; without it only `none` and `host` can be asked for.
    pub network: bool,
    /// PID 1's control socket; `None`: this process is the parent of its containers, and they end with it.
    pub control: Option<PathBuf>,
    /// The program that sets containers up from inside; `None`: this one (see `keel_oci::Create::init`).
    pub oci_init: Option<PathBuf>,
    /// Whether [`Engine::declare`] will be called: what it starts after a boot isn't started by its restart policy.
    pub declares: bool,
}

impl Default for Options {
    /// As on a host.
    fn default() -> Self {
        Self {
            cgroups: Some(paths::CGROUP_CONTAINERS.into()),
            network: true,
            control: Some(paths::CONTROL_SOCKET.into()),
            oci_init: None,
            declares: false,
        }
    }
}

/// How many containers there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub all: usize,
    /// Those that run.
    pub running: usize,
    /// Those that are paused.
    pub paused: usize,
    /// All others.
    pub stopped: usize,
}

/// The lifecycles of all containers. All methods block and may be called from any thread.
pub struct Engine {
    pub(crate) root: PathBuf,
    pub(crate) host_name: String,
    pub(crate) boot_id: String,
    pub(crate) options: Options,
    pub(crate) store: Arc<Store>,
    pub(crate) network: Network,
    pub(crate) volumes: Volumes,
    pub(crate) link: Arc<dyn InitLink>,
    pub(crate) stdio: Stdio,
    pub(crate) schedule: Schedule,
    pub(crate) events: Arc<Events>,
    pub(crate) execs: Execs,
    pub(crate) declared_open: declared::Open,
    pub(crate) shutting_down: AtomicBool,
    /// Held while cgroups of `--cgroup-parent` are made or removed.
    pub(crate) parents: Mutex<()>,
    /// Rung when a shutdown is complete.
    pub(crate) down: (Mutex<bool>, Bells),
    table: Mutex<BTreeMap<String, Arc<Container>>>,
}

impl Engine {
    /// Opens the engine on a host: takes over the containers that run, and has those started that should run.
    /// Doesn't wait for the latter.
    pub fn open(state: &Path, settings: &Settings, store: Arc<Store>) -> Result<Arc<Self>, Error> {
        Self::open_with(state, settings, store, Options::default())
    }

    /// The same with other options.
    pub fn open_with(
        state: &Path,
        settings: &Settings,
        store: Arc<Store>,
        options: Options,
    ) -> Result<Arc<Self>, Error> {
        let link: Arc<dyn InitLink> = match &options.control {
            Some(path) => Arc::new(Pid1::connect(path)?),
            None => Arc::new(Local::default()),
        };
        Self::open_linked(state, settings, store, options, link)
    }

    /// The same with a given parent of the containers.
    pub(crate) fn open_linked(
        state: &Path,
        settings: &Settings,
        store: Arc<Store>,
        options: Options,
        link: Arc<dyn InitLink>,
    ) -> Result<Arc<Self>, Error> {
        for folder in ["containers", "volumes", "network"] {
            let path = state.join(folder);
            fs::create_dir_all(&path).doing(|| format!("making {}", path.display()))?;
        }
        let transit = Arc::new(Transit::open(&*link)?);
        let network = Network::new(options.network.then(|| state.join("network")));
        let engine = Arc::new(Self {
            root: state.into(),
            host_name: settings.hostname.clone(),
            boot_id: boot_id().doing(|| "reading the kernel's boot ID")?,
            options,
            store,
            network,
            volumes: Volumes::open(&state.join("volumes")),
            link,
            stdio: Stdio::start(transit.clone()).doing(|| "starting the thread that reads containers' output")?,
            schedule: Schedule::default(),
            events: Arc::default(),
            execs: Execs::default(),
            declared_open: declared::Open::default(),
            shutting_down: AtomicBool::new(false),
            parents: Mutex::default(),
            down: (Mutex::new(false), Bells::default()),
            table: Mutex::default(),
        });
        // Listening begins before the list is asked for, so that no exit falls between them.
        let events = engine.link.subscribe()?;
        recover::recover(&engine, &transit)?;
        watch::start(&engine, events).doing(|| "starting the threads that watch containers")?;
        Ok(engine)
    }

    /// The images.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Sets the containers' network up, if it isn't: for a moment when nobody waits.
    pub fn prepare_network(&self) -> Result<(), Error> {
        self.network.get().map(drop)
    }

    /// The full ID of the container that `wanted` names: an ID, a name, or the beginning of an ID.
    pub fn resolve(&self, wanted: &str) -> Result<String, Error> {
        Ok(self.find(wanted)?.id.clone())
    }

    /// What was asked for when a container was made, with the image's settings filled in.
    pub fn request(&self, wanted: &str) -> Result<ContainerCreateBody, Error> {
        Ok(self.find(wanted)?.config().body.clone())
    }

    /// How many containers there are.
    pub fn counts(&self) -> Counts {
        let all = self.all();
        let (mut running, mut paused) = (0, 0);
        for state in all.iter().map(|container| container.state()).filter(State::is_running) {
            *(if state.paused { &mut paused } else { &mut running }) += 1;
        }
        Counts { all: all.len(), running, paused, stopped: all.len() - running - paused }
    }

    /// Whether a container, running or not, was made from this image.
    pub fn image_in_use(&self, image: &ImageId) -> bool {
        let image = image.to_string();
        self.all().iter().any(|container| container.config().image_id == image)
    }

    /// Blocks until PID 1 has announced the host's shutdown and all containers are stopped; the process may end then.
    /// `Err`: cancelled before.
    pub fn wait_for_shutdown(&self, cancel: &Cancel) -> Result<(), Error> {
        self.down.1.add(cancel);
        loop {
            let rings = cancel.rings();
            if *self.down.0.lock().unwrap_or_else(PoisonError::into_inner) {
                return Ok(());
            }
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            cancel.wait(rings, None);
        }
    }

    pub(crate) fn find(&self, wanted: &str) -> Result<Arc<Container>, Error> {
        let table = self.table();
        if let Some(container) = table.get(wanted) {
            return Ok(container.clone());
        }
        let name = wanted.strip_prefix('/').unwrap_or(wanted);
        if let Some(container) = named(&table, name) {
            return Ok(container.clone());
        }
        let mut matches = table.range(wanted.to_owned()..).take_while(|(id, _)| id.starts_with(wanted));
        match (matches.next(), matches.next()) {
            _ if wanted.is_empty() => Err(Error::no_container(wanted)),
            (Some((_, container)), None) => Ok(container.clone()),
            (Some(_), Some(_)) => {
                Err(Error::BadParameter(format!("multiple IDs found with provided prefix: {wanted}")))
            }
            (None, _) => Err(Error::no_container(wanted)),
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<Arc<Container>> {
        self.table().get(id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Container>> {
        self.table().values().cloned().collect()
    }

    pub(crate) fn table(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }

    pub(crate) fn containers_folder(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn volumes_folder(&self) -> PathBuf {
        self.root.join("volumes")
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.schedule.stop();
    }
}

fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().into())
}

/// The container of this name.
pub(crate) fn named<'a>(table: &'a BTreeMap<String, Arc<Container>>, name: &str) -> Option<&'a Arc<Container>> {
    table.values().find(|container| container.config().name == name)
}
