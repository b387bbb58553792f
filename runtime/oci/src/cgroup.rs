//! cgroup v2 folders, their limits and processes.
use std::path::Path;
use crate::{Error, spec::Resources};
/// Makes the folder and writes its limits.
pub fn create(_path: &Path, _resources: &Resources) -> Result<(), Error> { Ok(()) }
/// Writes limits into an existing folder.
pub fn update(_path: &Path, _resources: &Resources) -> Result<(), Error> { Ok(()) }
/// Kills every process in it and below (`cgroup.kill`).
pub fn kill_all(_path: &Path) -> Result<(), Error> { Ok(()) }
/// Removes it and the folders below, once it is empty (waits up to 5 s); absent is fine.
pub fn remove(_path: &Path) -> Result<(), Error> { Ok(()) }
/// Process IDs in it and below.
pub fn pids(_path: &Path) -> Result<Vec<u32>, Error> { Ok(vec![]) }
/// Freezes or thaws it; returns when that is done (5 s at most).
pub fn freeze(_path: &Path, _frozen: bool) -> Result<(), Error> { Ok(()) }
