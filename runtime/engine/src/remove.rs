//! `remove`. The phase `Removing` is durable first, so that a crash leaves something that recovery finishes.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::container::Container;
use crate::create::anonymous_volumes;
use crate::disk::Phase;
use crate::engine::Engine;
use crate::error::{Doing, Error};

/// Begins the names of folders of containers that are gone.
pub(crate) const REMOVED: &str = ".removed-";

impl Engine {
    /// Removes a container, with `force` even one that runs, with `volumes` its anonymous volumes, too.
    pub fn remove(&self, wanted: &str, force: bool, volumes: bool) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let exits = container.live().exits;
        if container.state().is_running() {
            if !force {
                let (is, first) = match container.state().paused {
                    true => ("paused and must be unpaused first", String::new()),
                    false => ("running", ": stop the container before removing or force remove".into()),
                };
                let name = &container.config().name;
                return Err(Error::Conflict(format!("cannot remove container \"/{name}\": container is {is}{first}")));
            }
            container.update(|state| state.user_stopped = true)?;
            self.kill_hard(&container, exits)?;
        }
        self.remove_held(&container, volumes)
    }

    /// Removes one that doesn't run. One that is being removed already is waited for.
    pub(crate) fn remove_held(&self, container: &Arc<Container>, volumes: bool) -> Result<(), Error> {
        let _gate = container.enter();
        if container.live().removed {
            return Ok(());
        }
        if container.state().is_running() {
            return Err(Error::Conflict(format!("container {} was started again meanwhile", container.id)));
        }
        let anonymous = if volumes { anonymous_volumes(container) } else { Vec::new() };
        container.update(|state| state.phase = Phase::Removing)?;
        self.clear_away(container);
        self.remove_volumes(&anonymous, &container.id)?;
        // From the renaming on, recovery sees no container any more, only a folder to clear away.
        let aside = container.folder.with_file_name(format!("{REMOVED}{}", container.id));
        fs::rename(&container.folder, &aside).doing(|| format!("moving {} aside", container.folder.display()))?;
        if let Err(error) = remove_all(&aside) {
            ::log::error!("{}: not all of it can be removed before the next start: {error}", aside.display());
        }
        self.table().remove(&container.id);
        self.exec_forget(&container.id);
        container.live().removed = true;
        container.log.close();
        container.bells.ring();
        self.tell_of(container, "destroy", &[]);
        Ok(())
    }
}

/// Removes a folder and all below, never following links; absent is fine.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
