//! What this host offers its peers: the running release, once it has proved itself.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use keel_spec::api::ErrorCode;

use super::{Updater, trusted_root};
use crate::disk::FileDevice;
use crate::failure::{Failure, Result};
use crate::peers::offer::Running;
use crate::peers::{Offer, Opened, Peers};
use crate::tuf;

/// Between two looks at what could be offered, while it is nothing.
const LOOK_EVERY: Duration = Duration::from_secs(5);

impl Updater {
    /// The disk with the slots.
    pub(crate) fn disk(&self) -> &Path {
        &self.host.disk
    }

    /// The running release's files. Everything that they are checked against is on this host: no network is needed.
    fn offer(&self) -> Result<Offer> {
        let conflict = |why: &str| Failure::new(ErrorCode::Conflict, format!("serve peers: {why}"));
        let trusted = tuf::Client::kept(&self.store, &trusted_root()?).map_err(|error| {
            conflict(&format!("no kept metadata tells what was published: {error}; `keelctl update check` fetches it"))
        })?;
        let path = &self.host.disk;
        let disk = FileDevice::open_to_read(path).map_err(Failure::io(format!("open {}", path.display())))?;
        Offer::make(
            Arc::new(disk),
            Running {
                version: &self.host.running,
                profile: &self.host.profile,
                root_hash: self.host.root_hash,
                targets: trusted.targets().unwrap_or(&Default::default()),
                description: self.descriptions.get(&self.host.running),
            },
        )
    }
}

/// This host's files for its peers. They are looked for when somebody asks.
pub struct OfHost {
    updater: Arc<Updater>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    offer: Option<Arc<Offer>>,
    /// When nothing was found, and why.
    looked: Option<(Instant, String)>,
}

impl OfHost {
    /// Of a host.
    pub fn new(updater: Arc<Updater>) -> Self {
        Self { updater, seen: Mutex::default() }
    }

    /// What is offered, nothing while the release is on trial; what runs doesn't change, so it is found once.
    pub fn offer(&self) -> Option<Arc<Offer>> {
        // Not counted as a look: peers may ask the moment that the trial is over.
        if self.updater.on_trial.load(Ordering::Relaxed) {
            return None;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.offer.is_some() || seen.looked.as_ref().is_some_and(|(at, _)| at.elapsed() < LOOK_EVERY) {
            return seen.offer.clone();
        }
        match self.updater.offer() {
            Ok(offer) => {
                let ((files, bytes), running) = (offer.size(), self.updater.running());
                log::info!("peers may fetch {running}: {files} files, {bytes} bytes");
                seen.offer = Some(Arc::new(offer));
            }
            Err(failure) => {
                if seen.looked.as_ref().is_none_or(|(_, before)| *before != failure.message) {
                    log::info!("{failure}");
                }
                seen.looked = Some((Instant::now(), failure.message));
            }
        }
        seen.offer.clone()
    }
}

impl Peers for OfHost {
    fn open(&self, path: &str) -> Option<Opened> {
        let opened = self.offer()?.open(path);
        opened.unwrap_or_else(|failure| {
            log::warn!("{failure}");
            None
        })
    }

    fn served(&self, bytes: u64) {
        self.updater.figures.served(bytes);
    }
}
