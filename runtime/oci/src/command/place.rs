//! Where cgroups are on this host, and which one is a container's.

use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

use super::Result;
use super::args::Args;
use super::report::{self, Failure};
use crate::spec::{Cpu, NamespaceKind, Resources, Spec};
use crate::{cgroup, userns};

/// Where version 2 may be mounted: alone, or beside version 1.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// Folder of containers that name no path.
const OWN: &str = "keel-oci";
/// `CGROUP2_SUPER_MAGIC`.
const CGROUP2: libc::c_long = 0x6367_7270;

/// The root of cgroup v2; `None`: this host has version 1 alone.
pub(super) fn hierarchy() -> Option<PathBuf> {
    let is_v2 = |path: &&str| {
        let fd = rustix::fs::openat(CWD, *path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        fd.and_then(|fd| rustix::fs::fstatfs(&fd)).is_ok_and(|s| s.f_type == CGROUP2)
    };
    MOUNTS.iter().find(|path| is_v2(path)).map(PathBuf::from)
}

/// The cgroup for a new container; `None`: it stays in the caller's.
pub(super) fn cgroup(args: &Args, spec: &Spec, id: &str) -> Result<Option<PathBuf>> {
    match args.text("cgroup-manager")? {
        None | Some("cgroupfs") => {}
        Some("disabled") => return without(args, spec, true, "cgroups are disabled (--cgroup-manager disabled)"),
        Some(other) => {
            return Err(Failure::new(format!("--cgroup-manager {other:?}: cgroupfs and disabled are known")));
        }
    }
    let Some(root) = hierarchy() else {
        return without(args, spec, false, "this host has cgroup v1 alone, which isn't supported: mount cgroup v2");
    };
    let path = match spec.linux.cgroups_path.as_deref() {
        // What is delegated to a user is below the cgroup that the user is in.
        None | Some("") if userns::is_confined() => {
            own(&root, "self").unwrap_or_else(|| root.clone()).join(OWN).join(id)
        }
        None | Some("") => root.join(OWN).join(id),
        Some(path) if path.split(':').count() == 3 && !path.starts_with('/') => {
            return Err(Failure::new(format!(
                "linux.cgroupsPath {path:?} is for a systemd cgroup manager: give a path, as engines do with the \
                 cgroupfs manager"
            )));
        }
        Some(path) => below(&root, path)?,
    };
    let parent = path.parent().unwrap_or(&root);
    match std::fs::create_dir_all(parent).and_then(|()| may_fill(parent)) {
        Err(e) if limits(spec).is_none() => {
            let message = format!("make cgroup {}: {e}: it runs without one", path.display());
            match userns::is_confined() {
                true => report::debug(args, || message),
                false => report::warn(args, &message),
            }
            Ok(None)
        }
        _ => Ok(Some(path)),
    }
}

/// Whether cgroups can be made in one that is there: it may be another user's.
fn may_fill(parent: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::accessat(CWD, parent, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Removes the folder that containers without a path are in, if there is none left.
pub(super) fn remove_own_parent(cgroup: &Path) {
    if let Some(parent) = cgroup.parent().filter(|p| p.ends_with(OWN)) {
        // Not empty: it is in use.
        let _ = std::fs::remove_dir(parent);
    }
}

/// A cgroup named by a path, without leaving the hierarchy.
pub(super) fn below(root: &Path, path: &str) -> Result<PathBuf> {
    if path.split('/').any(|c| c == "..") || path.contains('\0') {
        return Err(Failure::new(format!("cgroup path {path:?} must not contain \"..\"")));
    }
    Ok(root.join(path.trim_start_matches('/')))
}

/// A container whose processes have moved on to cgroups of their own gives controllers to those; then nobody may be in its
/// own one any more ("no internal processes", cgroup-v2.rst), and a further process goes where the first one is.
pub(super) fn of_a_further_process(own: &Path, pid: u32) -> PathBuf {
    let given = std::fs::read_to_string(own.join("cgroup.subtree_control")).is_ok_and(|text| !text.trim().is_empty());
    let first = || self::own(&hierarchy()?, &pid.to_string()).filter(|path| path.starts_with(own));
    given.then(first).flatten().unwrap_or_else(|| own.to_owned())
}

/// The cgroup that a process is in.
fn own(root: &Path, pid: &str) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::/")).map(|path| root.join(path))
}

/// Without a cgroup: refused where limits are asked for that would then not hold. Who has `chosen` so knows that rules for
/// devices don't, either: engines leave those in.
fn without(args: &Args, spec: &Spec, chosen: bool, why: &str) -> Result<Option<PathBuf>> {
    if let Some(what) = limits(spec) {
        return Err(Failure::new(format!("linux.resources: {what} can't be limited: {why}")));
    }
    let rules = spec.linux.resources.as_ref().is_some_and(|r| r.devices.iter().any(|d| !d.allow));
    let bounding = spec.process.capabilities.iter().flat_map(|c| &c.bounding);
    let confined = spec.has_new(NamespaceKind::User) || userns::is_confined();
    let makes_nodes = !confined && bounding.into_iter().any(|c| c == "CAP_MKNOD");
    match (rules, makes_nodes && !chosen) {
        (true, true) => Err(Failure::new(format!(
            "linux.resources.devices: devices can't be denied: {why}; with CAP_MKNOD, the container could reach them"
        ))),
        (true, false) => {
            report::warn(args, &format!("linux.resources.devices: not in force: {why}"));
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// The first kind of limit that is asked for, devices apart.
fn limits(spec: &Spec) -> Option<&'static str> {
    let r: &Resources = spec.linux.resources.as_ref()?;
    let is_usual = |shares: &u64| *shares == cgroup::USUAL_SHARES;
    [
        ("memory", r.memory.as_ref().is_some_and(|m| m != &Default::default())),
        ("cpu", r.cpu.as_ref().is_some_and(|c| c != &Cpu { shares: c.shares.filter(is_usual), ..Cpu::default() })),
        ("pids", r.pids.as_ref().is_some_and(|p| p.limit > 0)),
        ("blockIO", r.block_io.as_ref().is_some_and(|b| b != &Default::default())),
        ("hugepageLimits", !r.hugepage_limits.is_empty()),
        ("rdma", !r.rdma.is_empty()),
        ("unified", !r.unified.is_empty()),
    ]
    .into_iter()
    .find_map(|(name, asked)| asked.then_some(name))
}
