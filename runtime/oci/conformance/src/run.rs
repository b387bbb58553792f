//! Runs cases side by side.

use std::collections::VecDeque;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change};
use rustix::thread::UnshareFlags;

use crate::case::Case;
use crate::lab::{Lab, Runtime};
use crate::leftovers;

/// How a case ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What the specification asks for is so.
    Passed,
    /// It isn't; why.
    Failed(String),
    /// This machine lacks what the case needs.
    Elsewhere,
}

/// One case with one runtime.
pub(crate) struct Ran {
    /// The case.
    pub case: Case,
    /// The runtime's name.
    pub runtime: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Milliseconds that it took.
    pub took_ms: u128,
}

/// The place for all cases, removed at the end.
pub(crate) struct Place {
    dir: tempfile::TempDir,
    probe: PathBuf,
}

impl Place {
    /// Sets this process up: mounts of its own, parent of orphans, and a probe that bundles can link to.
    pub(crate) fn new() -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "containers of all kinds are made: run this as root");
        unshare_mounts()?;
        crate::sys::call(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER as u64, 1, 0, 0, 0, 0])
            .context("become the parent of orphans")?;
        let dir = tempfile::Builder::new().prefix("keel-conformance-").tempdir()?;
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755))?;
        let probe = dir.path().join("probe");
        fs::copy(find_probe()?, &probe).context("copy the probe")?;
        fs::set_permissions(&probe, Permissions::from_mode(0o755))?;
        Ok(Self { dir, probe })
    }

    /// Runs one case.
    pub(crate) fn run(&self, case: &Case, runtime: &Runtime, number: usize) -> Ran {
        let begun = Instant::now();
        let outcome = if case.needs.is_here() { self.attempt(case, runtime, number) } else { Outcome::Elsewhere };
        Ran { case: *case, runtime: runtime.name.clone(), outcome, took_ms: begun.elapsed().as_millis() }
    }

    fn attempt(&self, case: &Case, runtime: &Runtime, number: usize) -> Outcome {
        let token = format!("case{}x{number}", std::process::id());
        let lab = match Lab::new(runtime, self.dir.path().join(&token), &self.probe, token) {
            Ok(lab) => lab,
            Err(error) => return Outcome::Failed(format!("{error:#}")),
        };
        let result = (case.run)(&lab);
        let left = leftovers::sweep(&lab);
        match result {
            Err(error) => Outcome::Failed(format!("{error:#}")),
            Ok(()) if !left.is_empty() => Outcome::Failed(format!("left behind: {}", left.join(", "))),
            Ok(()) => Outcome::Passed,
        }
    }

    /// Folder of this run.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The probe, on the host.
    pub(crate) fn probe(&self) -> &Path {
        &self.probe
    }
}

/// Runs all, `at_once` at a time; `done` sees each as it ends.
pub(crate) fn run_all(
    place: &Place,
    cases: &[Case],
    runtimes: &[Runtime],
    at_once: usize,
    done: impl Fn(&Ran) + Sync,
) -> Vec<Ran> {
    let pairs = runtimes.iter().flat_map(|runtime| cases.iter().map(move |case| (case, runtime)));
    let queue: Mutex<VecDeque<_>> = Mutex::new(pairs.enumerate().collect());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, 16) {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some((number, (case, runtime))) = next else { break };
                    let ran = place.run(case, runtime, number);
                    done(&ran);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push((number, ran));
                }
            });
        }
    });
    let _ = leftovers::remove_parents();
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, ran)| ran).collect()
}

/// So that whatever a runtime leaves mounted goes with this process, and nothing reaches the machine's own table.
fn unshare_mounts() -> Result<()> {
    crate::sys::call(libc::SYS_unshare, [u64::from(UnshareFlags::NEWNS.bits()), 0, 0, 0, 0, 0])
        .context("get a mount namespace")?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).context("make mounts private")?;
    // Half of version 2 beside version 1 is what crun refuses to run on; nothing here needs it.
    let _ = rustix::mount::unmount("/sys/fs/cgroup/unified", UnmountFlags::DETACH);
    Ok(())
}

/// The probe lies beside this program. It must be static: bundles hold nothing else.
fn find_probe() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("keel-oci-probe");
    let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    // ELF: a program header of type PT_INTERP names the loader.
    if bytes.windows(15).any(|window| window == b"/lib64/ld-linux") {
        bail!("{} isn't static: build it with `make conformance-programs`", path.display());
    }
    Ok(path)
}
