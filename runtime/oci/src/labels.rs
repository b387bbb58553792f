//! Labels of security modules that a program is executed with.

use std::path::Path;

use crate::Error;
use crate::plan::refused;
use crate::spec::Process;

/// Files below `/proc/self` and what is to be written to them. Asking for a module that the kernel doesn't run is an
/// error: the container would be less confined than it is meant to be.
pub(crate) fn of(process: &Process) -> Result<Vec<(String, String)>, Error> {
    let mut out = Vec::new();
    if let Some(profile) = process.apparmor_profile.as_ref().filter(|p| !p.is_empty()) {
        if !Path::new("/sys/kernel/security/apparmor").exists() {
            return Err(refused("process.apparmorProfile", format!("{profile:?}: the kernel doesn't run AppArmor")));
        }
        let own = Path::new("/proc/self/attr/apparmor/exec").exists();
        let file = if own { "attr/apparmor/exec" } else { "attr/exec" };
        out.push((file.into(), format!("exec {profile}")));
    }
    if let Some(label) = process.selinux_label.as_ref().filter(|l| !l.is_empty()) {
        if !Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(refused("process.selinuxLabel", format!("{label:?}: the kernel doesn't run SELinux")));
        }
        out.push(("attr/exec".into(), label.clone()));
    }
    Ok(out)
}
