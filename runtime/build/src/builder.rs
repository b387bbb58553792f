//! Builds begin and end here, and what they need is taken away again, however they end.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keel_engine::{Engine, ListWant};
use keel_store::ImageId;

use crate::build::Build;
use crate::cache::Cache;
use crate::context;
use crate::dockerfile::Dockerfile;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::options::{Options, Told};
use crate::plan;
use crate::room::Room;

/// Most builds at a time.
const MAX_BUILDS: usize = 4;
/// Label of the containers that commands run in, so that those which a crash left behind are found.
pub(crate) const LABEL: &str = "org.keel.build";

/// Builds images.
pub struct Builder {
    engine: Arc<Engine>,
    folder: PathBuf,
    cache: Mutex<Cache>,
    running: AtomicUsize,
    counter: AtomicU64,
}

impl Builder {
    /// A builder that keeps its files in `folder`; clears away what a crash left there and among the containers.
    pub fn open(engine: Arc<Engine>, folder: &Path) -> Result<Self, Error> {
        let rooms = folder.join("rooms");
        match std::fs::remove_dir_all(&rooms) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io(format!("clearing {}", rooms.display()))(error));
            }
            _ => {}
        }
        std::fs::create_dir_all(&rooms).map_err(Error::io(format!("making {}", rooms.display())))?;
        let filters = HashMap::from([("label".to_owned(), vec![LABEL.to_owned()])]);
        for container in engine.list(&ListWant { all: true, filters, ..ListWant::default() })? {
            let id = container.id.unwrap_or_default();
            if let Err(error) = engine.remove(&id, true, true) {
                log::warn!("container {id} of a build that broke off stays: {}", error.chain());
            }
        }
        let cache = Mutex::new(Cache::open(&folder.join("cache.json")));
        let (running, counter) = (AtomicUsize::new(0), AtomicU64::new(0));
        Ok(Self { engine, folder: folder.into(), cache, running, counter })
    }

    /// Builds an image of the Dockerfile in `context`, an archive of the client's files. What goes on is told to `tell`;
    /// once that returns `false` the client has left, and so the build ends.
    pub fn build(
        &self,
        options: &Options,
        context: &mut dyn Read,
        interrupt: &Interrupt,
        tell: &mut dyn FnMut(Told) -> bool,
    ) -> Result<ImageId, Error> {
        let _slot = self.enter()?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let room = Room::make(self.folder.join("rooms").join(format!("build-{number}")))?;
        let files = room.within()?;
        let context = context::receive(context, files.path(), interrupt)?;
        let file = Dockerfile::parse(&context.dockerfile(&options.dockerfile)?)?;
        let plan = plan::plan(&file, options.target.as_deref(), &options.arguments)?;
        let mut build = Build::new(&self.engine, options, interrupt, &room, &self.cache, tell);
        let result = build.run(&file, &plan, &context);
        // What was made on the way goes, however it ended; what the image has stays.
        build.clear_away(result.as_ref().ok());
        match result {
            Err(_) if interrupt.is_set() => Err(Error::Cancelled),
            other => other,
        }
    }

    /// Forgets the steps that were taken.
    pub fn forget(&self) {
        lock(&self.cache).clear();
    }

    fn enter(&self) -> Result<Slot<'_>, Error> {
        let slot = Slot(&self.running);
        if self.running.fetch_add(1, Ordering::SeqCst) >= MAX_BUILDS {
            return Err(Error::Busy(MAX_BUILDS));
        }
        Ok(slot)
    }
}

/// The right to one build.
struct Slot<'a>(&'a AtomicUsize);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
