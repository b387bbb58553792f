//! The engine itself, its start and what it knows.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bollard_stubs::models::{ContainerCreateBody, ContainerCreateResponse, ContainerInspectResponse, ContainerSummary};
use keel_spec::config::Settings;
use keel_store::{ImageId, Store};

use crate::{AttachOptions, Attachment, Cancel, Error, LogOptions, LogReader};

/// What may differ between a host and a workstation.
#[derive(Clone, Debug)]
pub struct Options {
    /// cgroup v2 folder that gets a child for each container; `None`: no cgroups (tests).
    pub cgroups: Option<PathBuf>,
    /// Whether containers get a network; without it only `none` and `host` can be asked for.
    pub network: bool,
    /// PID 1's control socket; `None`: this process is the parent of its containers, and they end with it.
    pub control: Option<PathBuf>,
    /// The program that sets containers up from inside; `None`: this one (see `keel_oci::Create::init`).
    pub oci_init: Option<PathBuf>,
}

/// The lifecycles of all containers. All methods block and may be called from any thread.
pub struct Engine {}

/// What a caller of `wait` waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaitCondition {
    /// That it doesn't run (it may have ended before).
    #[default]
    NotRunning,
    /// That its next run ends.
    NextExit,
    /// That it is removed.
    Removed,
}

/// A registered wait: what happens after it was made isn't missed.
pub struct Waiter {}

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

#[allow(missing_docs, unused_variables)]
impl Engine {
    pub fn open(state: &Path, settings: &Settings, store: Arc<Store>) -> Result<Arc<Self>, Error> {
        todo()
    }
    pub fn open_with(
        state: &Path,
        settings: &Settings,
        store: Arc<Store>,
        options: Options,
    ) -> Result<Arc<Self>, Error> {
        todo()
    }
    pub fn create(&self, name: Option<&str>, body: ContainerCreateBody) -> Result<ContainerCreateResponse, Error> {
        todo()
    }
    pub fn start(&self, wanted: &str) -> Result<(), Error> {
        todo()
    }
    pub fn stop(&self, wanted: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<(), Error> {
        todo()
    }
    pub fn kill(&self, wanted: &str, signal: Option<&str>) -> Result<(), Error> {
        todo()
    }
    pub fn restart(&self, wanted: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<(), Error> {
        todo()
    }
    pub fn remove(&self, wanted: &str, force: bool, volumes: bool) -> Result<(), Error> {
        todo()
    }
    pub fn rename(&self, wanted: &str, name: &str) -> Result<(), Error> {
        todo()
    }
    pub fn wait(&self, wanted: &str, condition: WaitCondition, cancel: &Cancel) -> Result<i64, Error> {
        todo()
    }
    pub fn waiter(&self, wanted: &str, condition: WaitCondition) -> Result<Waiter, Error> {
        todo()
    }
    pub fn list(
        &self,
        all: bool,
        limit: Option<usize>,
        filters: &HashMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>, Error> {
        todo()
    }
    pub fn inspect(&self, wanted: &str) -> Result<ContainerInspectResponse, Error> {
        todo()
    }
    pub fn logs(&self, wanted: &str, options: &LogOptions) -> Result<LogReader, Error> {
        todo()
    }
    pub fn attach(&self, wanted: &str, options: &AttachOptions) -> Result<Attachment, Error> {
        todo()
    }
    pub fn resolve(&self, wanted: &str) -> Result<String, Error> {
        todo()
    }
    pub fn counts(&self) -> Counts {
        Counts::default()
    }
    pub fn store(&self) -> &Store {
        unimplemented!()
    }
    pub fn image_in_use(&self, image: &ImageId) -> bool {
        false
    }
    pub fn shutdown(&self) {}
}

impl Waiter {
    /// Waits; the exit code of the last run.
    pub fn wait(self, cancel: &Cancel) -> Result<i64, Error> {
        todo()
    }
}

fn todo<T>() -> Result<T, Error> {
    Err(Error::internal("this call", "isn't made yet"))
}
