//! How a client leaves a build.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keel_engine::Cancel;

use crate::error::Error;

/// Ends a build from another thread; clones are the same.
#[derive(Clone, Default)]
pub struct Interrupt(Arc<Inner>);

#[derive(Default)]
struct Inner {
    set: AtomicBool,
    /// What the build waits for.
    waits: Mutex<Option<Cancel>>,
}

impl Interrupt {
    /// Ends the build at its next step, or what it waits for.
    pub fn interrupt(&self) {
        self.0.set.store(true, Ordering::SeqCst);
        if let Some(cancel) = &*self.waits() {
            cancel.cancel();
        }
    }

    /// Whether the client has left.
    pub fn is_set(&self) -> bool {
        self.0.set.load(Ordering::SeqCst)
    }

    /// An error if it has.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_set() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Has this cancelled if the client leaves, now or later, until something else is named.
    pub(crate) fn waits_for(&self, cancel: Option<Cancel>) {
        *self.waits() = cancel;
        // It may have left before.
        if self.is_set() {
            self.interrupt();
        }
    }

    /// A stream that breaks when the client leaves.
    pub(crate) fn watch<R: Read>(&self, inner: R) -> Watched<R> {
        Watched { inner, interrupt: self.clone() }
    }

    fn waits(&self) -> MutexGuard<'_, Option<Cancel>> {
        self.0.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that breaks when the client leaves.
pub(crate) struct Watched<R> {
    inner: R,
    interrupt: Interrupt,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.interrupt.is_set() {
            return Err(io::Error::other("the client has left"));
        }
        self.inner.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_waited_for_ends_whenever_the_client_leaves() {
        for leaves_first in [true, false] {
            let (interrupt, cancel) = (Interrupt::default(), Cancel::new());
            if leaves_first {
                interrupt.interrupt();
            }
            interrupt.waits_for(Some(cancel.clone()));
            if !leaves_first {
                assert!(!cancel.is_cancelled());
                interrupt.interrupt();
            }
            assert!(cancel.is_cancelled() && interrupt.check().is_err());
        }
    }
}
