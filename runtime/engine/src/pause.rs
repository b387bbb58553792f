//! `pause` and `unpause`: the container's cgroup is frozen (cgroup-v2.rst, `cgroup.freeze`), so that its processes see
//! nothing of it.

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Doing, Error};

impl Engine {
    /// Freezes a container that runs.
    pub fn pause(&self, wanted: &str) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let _gate = container.enter();
        let state = container.state();
        if !state.is_running() {
            return Err(Error::Conflict(format!("Container {} is not running", container.id)));
        }
        if state.paused {
            return Err(Error::Conflict(format!("Container {} is already paused", container.id)));
        }
        self.freeze(&container, true)?;
        container.update(|state| state.paused = true)?;
        self.tell_of(&container, "pause", &[]);
        Ok(())
    }

    /// Lets it go on.
    pub fn unpause(&self, wanted: &str) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let _gate = container.enter();
        if !container.state().paused {
            return Err(Error::Conflict(format!("Container {} is not paused", container.id)));
        }
        self.thaw(&container)?;
        self.tell_of(&container, "unpause", &[]);
        Ok(())
    }

    /// Lets one go on that is paused; any other is fine.
    pub(crate) fn thaw(&self, container: &Container) -> Result<(), Error> {
        if !container.state().paused {
            return Ok(());
        }
        self.freeze(container, false)?;
        container.update(|state| state.paused = false)
    }

    fn freeze(&self, container: &Container, frozen: bool) -> Result<(), Error> {
        let cgroup = self.cgroup(container).ok_or_else(|| {
            Error::Unsupported("pausing a container needs cgroup v2, which this engine runs without".into())
        })?;
        let done = keel_oci::cgroup::freeze(&cgroup, frozen);
        if frozen && done.is_err() {
            // Half frozen is worse than not at all.
            let _ = keel_oci::cgroup::freeze(&cgroup, false);
        }
        done.doing(|| format!("{} container {}", if frozen { "pausing" } else { "unpausing" }, container.id))
    }
}
