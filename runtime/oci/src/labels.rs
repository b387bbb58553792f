//! Labels of security modules: what a program is executed with, and what the files of new file systems have.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::plan::refused;
use crate::spec::{Process, Spec};

/// Options by which SELinux labels a file system (Documentation/admin-guide/LSM/SELinux; mount(8), "context").
pub(crate) const MOUNT_OPTIONS: [&str; 4] = ["context", "defcontext", "fscontext", "rootcontext"];

/// What is written for a program before it is executed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Label {
    /// Below `/proc/self`.
    pub file: String,
    pub text: String,
    /// What that is, for messages.
    pub what: String,
}

/// How new file systems of this type get their label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By an option of the mount.
    Option,
    /// By an attribute of its root: the kernel made the file system along with its namespace, and its options can't be
    /// changed any more.
    Attribute,
    /// Not at all: the policy labels what is in it.
    Policy,
}

/// See [`Way`]; as runc and crun do it.
pub(crate) fn way(kind: &str) -> Way {
    match kind {
        "proc" | "sysfs" | "cgroup2" => Way::Policy,
        "mqueue" => Way::Attribute,
        _ => Way::Option,
    }
}

/// The labels of a process. Asking for a module that the kernel doesn't run is an error: the container would be less
/// confined than it is meant to be.
pub(crate) fn of(process: &Process) -> Result<Vec<Label>, Error> {
    let mut out = Vec::new();
    if let Some(profile) = process.apparmor_profile.as_ref().filter(|p| !p.is_empty()) {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with(b"Y"));
        if !enabled {
            return Err(refused("process.apparmorProfile", format!("{profile:?}: the kernel doesn't run AppArmor")));
        }
        let own = Path::new("/proc/self/attr/apparmor/exec").exists();
        let file = if own { "attr/apparmor/exec" } else { "attr/exec" };
        let what = format!("AppArmor profile {profile:?} (it must be loaded)");
        out.push(Label { file: file.into(), text: format!("exec {profile}"), what });
    }
    if let Some(label) = process.selinux_label.as_ref().filter(|l| !l.is_empty()) {
        selinux("process.selinuxLabel", label)?;
        let what = format!("SELinux label {label:?} (the policy must know it)");
        out.push(Label { file: "attr/exec".into(), text: label.clone(), what });
    }
    Ok(out)
}

/// The label that new file systems get.
pub(crate) fn of_mounts(spec: &Spec) -> Result<Option<String>, Error> {
    let Some(label) = spec.linux.mount_label.as_ref().filter(|l| !l.is_empty()) else { return Ok(None) };
    selinux("linux.mountLabel", label)?;
    Ok(Some(label.clone()))
}

fn selinux(field: &str, label: &str) -> Result<(), Error> {
    if !Path::new("/sys/fs/selinux/enforce").exists() {
        return Err(refused(field, format!("{label:?}: the kernel doesn't run SELinux")));
    }
    if label.contains('\0') {
        return Err(refused(field, format!("{label:?} contains a NUL byte")));
    }
    Ok(())
}
