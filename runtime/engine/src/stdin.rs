//! A container's standard input: the write end of its pipe, and what becomes of it when clients leave.
//!
//! Docker's rules: without `OpenStdin` it is `/dev/null`. With it, the pipe stays open over clients that come and go,
//! unless `StdinOnce`: then the first client that leaves closes it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cancel::{Bells, Cancel};

/// See the module.
pub struct Stdin {
    once: bool,
    state: Mutex<State>,
    bells: Bells,
    /// Called when the pipe is closed for good, so that PID 1's copy of it is closed, too.
    on_close: Box<dyn Fn() + Send + Sync>,
}

enum State {
    /// The container doesn't run; a client may already be there.
    Waiting {
        /// The client came and left again before the start: the pipe is closed as soon as it is there.
        left: bool,
    },
    Open(Arc<OwnedFd>),
    Closed,
}

impl Stdin {
    /// The input of a container that doesn't run.
    pub fn new(once: bool, on_close: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            once,
            state: Mutex::new(State::Waiting { left: false }),
            bells: Bells::default(),
            on_close: Box::new(on_close),
        }
    }

    /// The container runs with this pipe. It must not block.
    pub fn open(&self, pipe: OwnedFd) {
        let mut state = self.lock();
        let left = matches!(*state, State::Waiting { left: true });
        *state = if left { State::Closed } else { State::Open(Arc::new(pipe)) };
        drop(state);
        if left {
            (self.on_close)();
        }
        self.bells.ring();
    }

    /// The container has ended; the next run gets a new pipe.
    pub fn reset(&self) {
        *self.lock() = State::Waiting { left: false };
        self.bells.ring();
    }

    /// The run has ended for those who write: they get `BrokenPipe` until the next run opens a pipe.
    pub fn end(&self) {
        *self.lock() = State::Closed;
        self.bells.ring();
    }

    /// A client left.
    pub fn detach(&self) {
        if !self.once {
            return;
        }
        let mut state = self.lock();
        let closed = match &mut *state {
            State::Waiting { left } => {
                *left = true;
                false
            }
            State::Open(_) => {
                *state = State::Closed;
                true
            }
            State::Closed => false,
        };
        drop(state);
        if closed {
            (self.on_close)();
            self.bells.ring();
        }
    }

    /// The pipe to write to, waiting for the container's start.
    pub fn pipe(&self, bell: &Cancel) -> io::Result<Arc<OwnedFd>> {
        self.bells.add(bell);
        loop {
            let rings = bell.rings();
            if bell.is_cancelled() {
                return Err(io::Error::new(io::ErrorKind::Interrupted, "the caller has gone away"));
            }
            match &*self.lock() {
                State::Open(pipe) => return Ok(pipe.clone()),
                State::Closed => return Err(io::ErrorKind::BrokenPipe.into()),
                State::Waiting { .. } => {}
            }
            bell.wait(rings, None);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
