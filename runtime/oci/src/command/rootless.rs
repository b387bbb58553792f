//! As a user other than root: this program enters a user namespace in which it is root, and works from there as it would
//! on the host. What the kernel keeps for the host's root stays out of reach (user_namespaces(7)): more IDs than one's own,
//! device nodes, cgroups that aren't delegated.

use std::os::fd::BorrowedFd;

use super::Result;
use super::report::{Doing, Failure};
use crate::spec::{IdMapping, NamespaceKind, Spec};
use crate::{procfs, sys};

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
    let is_own =
        |lines: &[IdMapping], id| matches!(lines, [line] if (line.container_id, line.host_id, line.size) == (0, id, 1));
    if !is_own(&spec.linux.uid_mappings, uid) || !is_own(&spec.linux.gid_mappings, gid) {
        return Err(Failure::new(format!(
            "linux.uidMappings, linux.gidMappings: user {uid} can only map itself and its group {gid} to 0; whoever maps more \
             makes the namespace first and calls this program in it, as Podman does"
        )));
    }
    let step = || "make a user namespace".to_owned();
    sys::new_user_namespace().doing(step)?;
    // Or whoever a group of this user's keeps out could be let in by dropping it.
    procfs::write("self/setgroups", "deny").doing(step)?;
    procfs::write("self/uid_map", &format!("0 {uid} 1")).doing(step)?;
    procfs::write("self/gid_map", &format!("0 {gid} 1")).doing(step)?;
    without_it(spec);
    Ok(())
}

/// Enters the user namespace of a container that this user has made.
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
