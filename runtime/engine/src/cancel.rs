//! How a caller leaves a blocking call, and how a container wakes those that wait for it: one bell for both, so that
//! a waiter sleeps on one thing only.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A bell that a blocked call listens to; clones are the same bell.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Bell>);

#[derive(Default)]
struct Bell {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts the rings, so that one between a check and the wait after it isn't missed.
    rings: u64,
    cancelled: bool,
}

impl Cancel {
    /// A bell of one's own.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the call that listens return [`crate::Error::Cancelled`] (a reader: end).
    pub fn cancel(&self) {
        self.lock().cancelled = true;
        self.ring();
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    pub(crate) fn ring(&self) {
        let mut state = self.lock();
        state.rings = state.rings.wrapping_add(1);
        self.0.changed.notify_all();
    }

    /// How often it rang so far: taken before a check, given to [`Cancel::wait`] after it.
    pub(crate) fn rings(&self) -> u64 {
        self.lock().rings
    }

    /// Sleeps until it has rung more than `seen` times, or until `deadline`.
    pub(crate) fn wait(&self, seen: u64, deadline: Option<Instant>) {
        let mut state = self.lock();
        while state.rings == seen && !state.cancelled {
            state = match deadline {
                None => self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left == Duration::ZERO {
                        return;
                    }
                    self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bells of those who wait for one thing. Those whose owners have gone are forgotten at the next ring.
#[derive(Default)]
pub(crate) struct Bells(Mutex<Vec<Weak<Bell>>>);

impl Bells {
    /// Most waiters of one container; further ones replace the oldest, which then only wake by their deadlines.
    const MAX: usize = 1024;

    pub(crate) fn add(&self, bell: &Cancel) {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|known| known.strong_count() > 0);
        if bells.len() >= Self::MAX {
            bells.remove(0);
        }
        bells.push(Arc::downgrade(&bell.0));
    }

    pub(crate) fn ring(&self) {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.retain(|known| known.upgrade().map(|bell| Cancel(bell).ring()).is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_between_check_and_wait_is_not_missed() {
        let (bells, bell) = (Bells::default(), Cancel::new());
        bells.add(&bell);
        let seen = bell.rings();
        bells.ring();
        bell.wait(seen, None);
    }

    #[test]
    fn cancelling_wakes_a_waiter_on_another_thread() {
        let bell = Cancel::new();
        let other = bell.clone();
        let waiter = std::thread::spawn(move || other.wait(other.rings(), None));
        bell.cancel();
        waiter.join().unwrap();
        assert!(bell.is_cancelled());
    }
}
