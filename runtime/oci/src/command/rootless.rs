//! As a user other than root: this program enters a user namespace in which it is root, and works from there as it would
//! on the host. What the kernel keeps for the host's root stays out of reach (user_namespaces(7)): device nodes, cgroups
//! that aren't delegated. More IDs than one's own are given by newuidmap(1) and newgidmap(1), from those of subuid(5).

use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Command, Stdio};

use super::Result;
use super::report::{Doing, Failure};
use crate::spec::{IdMapping, NamespaceKind, Spec};
use crate::{procfs, sys, userns};

/// Whether this process lacks the host's rights.
pub(super) fn is_needed() -> bool {
    !rustix::process::geteuid().is_root()
}

/// Enters the user namespace that the configuration asks for, which then needn't be made any more.
pub(super) fn enter(spec: &mut Spec) -> Result<()> {
    if !is_needed() {
        return Ok(());
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if !spec.has_new(NamespaceKind::User) {
        return Err(Failure::new(format!(
            "user {uid} can only make containers with a user namespace: linux.namespaces asks for none (`spec --rootless` \
             writes a configuration)"
        )));
    }
    let is_first = |lines: &[IdMapping], id| lines.iter().any(|l| l.container_id == 0 && l.host_id == id && l.size > 0);
    let (uids, gids) = (&spec.linux.uid_mappings, &spec.linux.gid_mappings);
    if !is_first(uids, uid) || !is_first(gids, gid) {
        return Err(Failure::new(format!(
            "linux.uidMappings, linux.gidMappings: 0 must be user {uid} and its group {gid}, whose containers these are"
        )));
    }
    let step = || "make a user namespace".to_owned();
    let is_alone = |lines: &[IdMapping]| matches!(lines, [line] if line.size == 1);
    if !is_alone(uids) || !is_alone(gids) {
        let namespace = userns::make_mapped(|pid| {
            give("newuidmap", pid, uids).doing(step)?;
            give("newgidmap", pid, gids).doing(step)
        })?;
        return join(namespace.as_fd(), spec);
    }
    sys::new_user_namespace().doing(step)?;
    // Or whoever a group of this user's keeps out could be let in by dropping it.
    procfs::write("self/setgroups", "deny").doing(step)?;
    procfs::write("self/uid_map", &format!("0 {uid} 1")).doing(step)?;
    procfs::write("self/gid_map", &format!("0 {gid} 1")).doing(step)?;
    without_it(spec);
    Ok(())
}

/// Has a program that may do it write the mappings of a process's user namespace.
fn give(program: &str, pid: u32, lines: &[IdMapping]) -> Result<()> {
    let mut command = Command::new(program);
    command.arg(pid.to_string()).stdin(Stdio::null());
    command.args(lines.iter().flat_map(|l| [l.container_id, l.host_id, l.size]).map(|number| number.to_string()));
    let output = command.output().doing(|| format!("run {program}, which is of the package uidmap"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!(
        "{program} gives no such IDs ({}): /etc/subuid and /etc/subgid say whose they are",
        said.trim()
    )))
}

/// Enters the user namespace of a container that this user has made, given by itself or by a process (a pidfd) in it.
pub(super) fn join(container: BorrowedFd<'_>, spec: &mut Spec) -> Result<()> {
    if !is_needed() {
        return Ok(());
    }
    sys::join(container, libc::CLONE_NEWUSER).doing(|| "join the container's user namespace".into())?;
    sys::new_mount_namespace().doing(|| "make a mount namespace".into())?;
    without_it(spec);
    Ok(())
}

fn without_it(spec: &mut Spec) {
    spec.linux.namespaces.retain(|n| n.kind != NamespaceKind::User);
    spec.linux.uid_mappings.clear();
    spec.linux.gid_mappings.clear();
}
