//! Where containers' cgroups are: each container has one, named by its ID, in the engine's slice or, with
//! `--cgroup-parent`, in groups below that. Such a parent is there as long as a container runs in it.
//!
//! A container's record tells where its cgroup is, and starts, ends and the engine's own start take away what is found
//! there. So nothing more is kept about parents, and a crash leaves at most an empty one that the next start removes.

use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{MutexGuard, PoisonError};

use keel_oci::spec::Resources;

use crate::container::Container;
use crate::disk::Config;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::id;
use crate::plan::cgroup::{MAX_DEPTH, parent};
use crate::recover::report;

impl Engine {
    /// The container's cgroup; `None`: the engine runs without.
    pub(crate) fn cgroup(&self, container: &Container) -> Option<PathBuf> {
        let slice = self.options.cgroups.as_ref()?;
        let config = container.config();
        // What was accepted once is served, whatever this release thinks of it.
        let parent = parent(config.body.host_config.as_ref()).unwrap_or_default();
        Some(slice.join(parent).join(&container.id))
    }

    /// Makes a container's cgroup if that has parents, and these. From then on they aren't empty, so nobody removes
    /// them until it ends.
    pub(crate) fn make_parents(&self, cgroup: Option<&Path>, resources: Option<&Resources>) -> Result<(), Error> {
        let Some(cgroup) = cgroup.filter(|path| self.parents(path).next().is_some()) else { return Ok(()) };
        let _held = self.hold_parents();
        let resources = resources.cloned().unwrap_or_default();
        keel_oci::cgroup::make(cgroup, &resources).doing(|| "making the groups of --cgroup-parent")
    }

    /// Removes those parents of a cgroup, itself gone, in which nothing else is.
    pub(crate) fn remove_parents(&self, cgroup: &Path) -> Result<(), Error> {
        if self.parents(cgroup).next().is_none() {
            return Ok(());
        }
        let _held = self.hold_parents();
        self.parents(cgroup).try_for_each(remove_if_empty)
    }

    /// Promises to a container's parents, and to the slice, the memory that `--memory-reservation` promises to those in
    /// them: the kernel protects no more of a group than it does of the group around it (cgroup v2, `memory.low`).
    pub(crate) fn settle_reservations(&self, cgroup: Option<&Path>, config: &Config) -> Result<(), Error> {
        let reserves =
            config.body.host_config.as_ref().and_then(|host| host.memory_reservation).unwrap_or_default() > 0;
        let (Some(slice), Some(cgroup)) = (&self.options.cgroups, cgroup.filter(|_| reserves)) else { return Ok(()) };
        let _held = self.hold_parents();
        self.parents(cgroup).chain([slice.as_path()]).try_for_each(settle)
    }

    /// Removes cgroups of containers that don't run, wherever they are, and empty parents.
    pub(crate) fn sweep_cgroups(&self, running: &[String]) {
        if let Some(slice) = &self.options.cgroups {
            self.sweep_below(slice, running, 0);
            report("memory.low of the containers' cgroup", settle(slice));
        }
    }

    fn sweep_below(&self, folder: &Path, running: &[String], depth: usize) {
        // None there: no container has run since the boot.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
            if !id::is_id(&name) {
                if depth < MAX_DEPTH {
                    self.sweep_below(&path, running, depth + 1);
                }
                let _held = self.hold_parents();
                report(&name, remove_if_empty(&path));
                report(&name, settle(&path));
            } else if !running.contains(&name) {
                report(&name, keel_oci::cgroup::kill_all(&path).doing(|| "killing what is left of it"));
                report(&name, keel_oci::cgroup::remove(&path).doing(|| "removing its cgroup"));
            }
        }
    }

    /// The groups between a container's and the slice, from the inside out.
    fn parents<'a>(&self, cgroup: &'a Path) -> impl Iterator<Item = &'a Path> {
        let slice = self.options.cgroups.clone().unwrap_or_default();
        cgroup.ancestors().skip(1).take_while(move |folder| *folder != slice)
    }

    fn hold_parents(&self) -> MutexGuard<'_, ()> {
        self.parents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets a group's `memory.low` to what the groups in it have together.
fn settle(folder: &Path) -> Result<(), Error> {
    const FILE: &str = "memory.low";
    let own = |folder: &Path| match fs::read_to_string(folder.join(FILE)).unwrap_or_default().trim() {
        "max" => u64::MAX,
        text => text.parse().unwrap_or(0),
    };
    let sum = fs::read_dir(folder).into_iter().flatten().flatten().fold(0, |sum: u64, entry| {
        sum.saturating_add(if entry.file_type().is_ok_and(|kind| kind.is_dir()) { own(&entry.path()) } else { 0 })
    });
    if own(folder) == sum {
        return Ok(());
    }
    let path = folder.join(FILE);
    let written =
        File::options().write(true).open(&path).and_then(|mut file| file.write_all(sum.to_string().as_bytes()));
    written.doing(|| format!("promising {sum} bytes in {}", path.display()))
}

/// One with others in it, or gone already, is fine.
fn remove_if_empty(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir(folder) {
        Err(error) => match error.kind() {
            // The kernel's word for a group with groups in it is "busy".
            ErrorKind::NotFound | ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty => Ok(()),
            _ => Err(Error::internal(format!("removing the empty cgroup {}", folder.display()), error)),
        },
        Ok(()) => Ok(()),
    }
}
