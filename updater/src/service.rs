//! The D-Bus interface, `org.keel.Updater1`. One operation at a time; each on a thread of its own, so that a status is
//! answered while an install runs.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use keel_link::bus::{self, Emitter};
use keel_spec::api::{ApiError, ErrorCode};
use keel_spec::bus::InstallProgress;
use keel_spec::release::{InvalidVersion, Version};
use zbus::object_server::SignalEmitter;

use crate::failure::{Failure, Result};
use crate::history::Keeper;
use crate::host;
use crate::install::Progress;
use crate::operations::Updater;
use crate::rollout::driver::Driver;

/// Name of the interface.
const INTERFACE: &str = "org.keel.Updater1";
/// Where the object is.
pub const OBJECT: &str = "/org/keel/Updater";
/// Least time between two signals of the same stage.
const SIGNAL_EVERY: Duration = Duration::from_millis(200);
const IDLE: &str = "idle";

/// The served object.
#[derive(Clone)]
pub struct Service(Arc<Shared>);

struct Shared {
    updater: Arc<Updater>,
    history: Arc<Keeper>,
    /// What the host does by itself.
    driver: Arc<Driver>,
    /// What is being done: `idle`, or a stage.
    activity: Mutex<String>,
    emitter: OnceLock<Emitter>,
}

/// An operation that runs; dropping it ends it.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.set_activity(IDLE);
    }
}

impl Shared {
    fn set_activity(&self, activity: &str) {
        let mut current = self.activity.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != activity {
            activity.clone_into(&mut current);
        }
    }

    fn begin(&self, operation: &str) -> Result<Running<'_>> {
        let mut current = self.activity.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != IDLE {
            let message = format!("{operation}: the updater is busy ({current}): try again when it is done");
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        operation.clone_into(&mut current);
        Ok(Running(self))
    }

    fn install(&self, version: &str) -> Result<String> {
        let wanted = wanted(version)?;
        self.installing(|updater, progress| updater.install(wanted.as_ref(), progress))
    }

    /// Runs an install, and tells how far it is.
    fn installing(&self, work: impl FnOnce(&Updater, Progress) -> Result<Version>) -> Result<String> {
        let outcome = self.with_progress(self.begin("install")?, work);
        match &outcome {
            Ok(version) => log::info!("installed {version}; it boots next"),
            Err(failure) => log::error!("{failure}"),
        }
        Ok(outcome?.to_string())
    }

    /// Does the work of an operation, and tells whoever listens how far it is.
    fn with_progress<T>(&self, _running: Running<'_>, work: impl FnOnce(&Updater, Progress) -> T) -> T {
        let mut last: Option<(&str, Instant)> = None;
        let mut progress = |stage: &'static str, done_bytes: u64, total_bytes: u64| {
            let due = last.is_none_or(|(before, at)| before != stage || at.elapsed() >= SIGNAL_EVERY);
            if !due && done_bytes != total_bytes {
                return;
            }
            last = Some((stage, Instant::now()));
            self.set_activity(stage);
            if let Some(emitter) = self.emitter.get() {
                let body = (InstallProgress { stage: stage.into(), done_bytes, total_bytes },);
                bus::block_on(emitter.emit(INTERFACE, "Progress", &body));
            }
        };
        work(&self.updater, &mut progress)
    }

    fn status(&self) -> Result<String> {
        let activity = self.activity.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut status = self.updater.status(&activity)?;
        status.automatic = Some(self.driver.status(host::now_unix_s()));
        to_json(&status)
    }
}

/// A version that was asked for; `None`: the newest that may follow.
fn wanted(version: &str) -> Result<Option<Version>> {
    match version {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|error: InvalidVersion| Failure::new(ErrorCode::BadRequest, error.to_string())),
    }
}

/// A failure as the bus carries it.
fn on_bus(failure: Failure) -> bus::Failure {
    bus::Failure::from(ApiError::from(failure))
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(Failure::io("write an answer"))
}

impl Service {
    /// For an updater. The emitter is set once it serves.
    pub fn new(updater: Arc<Updater>, history: Arc<Keeper>, driver: Arc<Driver>) -> Self {
        let activity = Mutex::new(IDLE.into());
        Self(Arc::new(Shared { updater, history, driver, activity, emitter: OnceLock::new() }))
    }

    /// Tells where progress is sent to.
    pub fn set_emitter(&self, emitter: Emitter) {
        // A second one is never set.
        let _ = self.0.emitter.set(emitter);
    }

    /// The updater.
    pub fn updater(&self) -> &Updater {
        &self.0.updater
    }

    /// Runs an operation that nobody asked for on the bus; `None`: another one runs.
    pub fn exclusive<T>(
        &self,
        operation: &str,
        work: impl FnOnce(&Updater, Progress) -> Result<T>,
    ) -> Option<Result<T>> {
        let running = self.0.begin(operation).ok()?;
        Some(self.0.with_progress(running, work))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T> + Send + 'static,
    ) -> Result<T, bus::Failure> {
        let shared = Arc::clone(&self.0);
        bus::unblock(move || work(&shared)).await.map_err(on_bus)
    }
}

#[zbus::interface(name = "org.keel.Updater1")]
impl Service {
    async fn status(&self) -> Result<String, bus::Failure> {
        self.blocking(Shared::status).await
    }

    async fn pause(&self) -> Result<String, bus::Failure> {
        self.blocking(|shared| {
            shared.driver.pause(host::now_unix_s())?;
            log::info!("paused: nothing is updated by itself until an operator resumes it");
            shared.status()
        })
        .await
    }

    async fn resume(&self) -> Result<String, bus::Failure> {
        self.blocking(|shared| {
            shared.driver.resume(host::now_unix_s())?;
            log::info!("resumed");
            shared.status()
        })
        .await
    }

    async fn check(&self) -> Result<String, bus::Failure> {
        self.blocking(|shared| {
            let _running = shared.begin("check")?;
            to_json(&shared.updater.check()?)
        })
        .await
    }

    async fn plan(&self, version: String) -> Result<String, bus::Failure> {
        self.blocking(move |shared| {
            let _running = shared.begin("plan")?;
            to_json(&shared.updater.preview(wanted(&version)?.as_ref())?)
        })
        .await
    }

    async fn install(&self, version: String) -> Result<String, bus::Failure> {
        self.blocking(move |shared| shared.install(&version)).await
    }

    async fn install_bundle(&self, file: zbus::OwnedFd) -> Result<String, bus::Failure> {
        let file = File::from(OwnedFd::from(file));
        self.blocking(move |shared| shared.installing(|updater, progress| updater.install_bundle(file, progress))).await
    }

    async fn install_from(&self, url: String) -> Result<String, bus::Failure> {
        self.blocking(move |shared| shared.installing(|updater, progress| updater.install_from(&url, progress))).await
    }

    async fn install_disk(&self, name: String) -> Result<String, bus::Failure> {
        self.blocking(move |shared| shared.installing(|updater, progress| updater.install_disk(&name, progress))).await
    }

    async fn plugged(&self) -> Result<String, bus::Failure> {
        self.blocking(|shared| {
            let _running = shared.begin("look at disks")?;
            to_json(&shared.updater.plugged()?.into_list())
        })
        .await
    }

    async fn rollback(&self) -> Result<String, bus::Failure> {
        self.blocking(|shared| {
            let _running = shared.begin("rollback")?;
            let next = shared.updater.rollback()?;
            log::info!("rolled back: {next} boots next");
            Ok(next.to_string())
        })
        .await
    }

    async fn boots(&self) -> Result<String, bus::Failure> {
        self.blocking(|shared| to_json(&shared.history.boots())).await
    }

    async fn boot_log(&self, number: u64) -> Result<String, bus::Failure> {
        self.blocking(move |shared| {
            let missing = || {
                let message = format!("show the last lines of boot {number}: none are kept; see `keelctl boots`");
                Failure::new(ErrorCode::NotFound, message)
            };
            shared.history.log(number)?.ok_or_else(missing)
        })
        .await
    }

    async fn load_next(&self) -> Result<String, bus::Failure> {
        self.blocking(|shared| {
            let _running = shared.begin("restart")?;
            let next = shared.updater.load_next().inspect_err(|failure| log::warn!("{failure}"))?;
            log::info!("loaded {next}, to be started without the firmware");
            Ok(next.to_string())
        })
        .await
    }

    #[zbus(signal)]
    async fn progress(emitter: &SignalEmitter<'_>, progress: InstallProgress) -> zbus::Result<()>;
}
