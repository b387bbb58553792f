//! What the updater has done since it was started, for whoever watches the host.

use std::sync::{Mutex, PoisonError};

use keel_spec::api::UpdateFigures;

/// Shared by all operations.
#[derive(Debug, Default)]
pub struct Figures(Mutex<UpdateFigures>);

impl Figures {
    /// A repository's metadata were found good.
    pub fn checked(&self, now_unix_s: u64) {
        self.change(|figures| figures.last_check_unix_s = Some(now_unix_s));
    }

    /// An install, successful or not, fetched so many bytes and found so many on the disk.
    pub fn moved(&self, fetched_bytes: u64, copied_bytes: u64) {
        self.change(|figures| {
            figures.fetched_bytes = figures.fetched_bytes.saturating_add(fetched_bytes);
            figures.copied_bytes = figures.copied_bytes.saturating_add(copied_bytes);
        });
    }

    /// Peers were served so many bytes.
    pub fn served(&self, bytes: u64) {
        self.change(|figures| figures.served_bytes = figures.served_bytes.saturating_add(bytes));
    }

    /// As they are now.
    pub fn now(&self) -> UpdateFigures {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut UpdateFigures)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
