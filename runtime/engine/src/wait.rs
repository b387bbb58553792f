//! `wait`.

use std::sync::Arc;

use crate::Cancel;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Error;

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
pub struct Waiter {
    container: Arc<Container>,
    condition: WaitCondition,
    exits: u64,
}

impl Engine {
    /// Registers a wait. Clients wait for the answer's head before they start the container, so the API sends it once
    /// this has returned.
    pub fn waiter(&self, wanted: &str, condition: WaitCondition) -> Result<Waiter, Error> {
        let container = self.find(wanted)?;
        let exits = container.live().exits;
        Ok(Waiter { container, condition, exits })
    }

    /// Waits for `condition`; the exit code of the last run. By then all its output is in the log.
    pub fn wait(&self, wanted: &str, condition: WaitCondition, cancel: &Cancel) -> Result<i64, Error> {
        self.waiter(wanted, condition)?.wait(cancel)
    }
}

impl Waiter {
    /// Waits; the exit code of the last run.
    pub fn wait(self, cancel: &Cancel) -> Result<i64, Error> {
        self.container.bells.add(cancel);
        loop {
            let rings = cancel.rings();
            let (exits, removed) = {
                let live = self.container.live();
                (live.exits, live.removed)
            };
            let done = removed
                || match self.condition {
                    WaitCondition::NotRunning => !self.container.is_active(),
                    WaitCondition::NextExit => exits > self.exits,
                    WaitCondition::Removed => false,
                };
            if done {
                return Ok(self.container.state().exit_code.into());
            }
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            cancel.wait(rings, None);
        }
    }
}
