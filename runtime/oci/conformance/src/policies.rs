//! What the machine's security modules must have been given for the cases about them: `policy/apparmor` and
//! `policy/selinux.cil` of this crate. Only one of the modules is in force at a time.

use std::fs;

/// Profile of the containers: nothing but `/work/denied` is denied.
pub(crate) const PROFILE: &str = "keel-conformance";
/// Another: nothing but `/work/other` is.
pub(crate) const OTHER_PROFILE: &str = "keel-conformance-other";

/// Label of the containers' processes, which may do everything but write files labelled [`FIXED`].
pub(crate) const BOX: &str = "keel_u:keel_r:keel_box_t:s0:c1,c2";
/// Another that may do the same.
pub(crate) const OTHER_BOX: &str = "keel_u:keel_r:keel_other_t:s0";
/// Label of the containers' files. Its comma is what mount options must cope with.
pub(crate) const FILES: &str = "keel_u:object_r:keel_file_t:s0:c1,c2";
/// Label of files that containers can't write.
pub(crate) const FIXED: &str = "keel_u:object_r:keel_fixed_t:s0:c1,c2";

/// Whether AppArmor is in force with the profiles.
pub(crate) fn apparmor() -> bool {
    let loaded = fs::read_to_string("/sys/kernel/security/apparmor/profiles").unwrap_or_default();
    let is_loaded = |name: &str| loaded.lines().any(|line| line == format!("{name} (enforce)"));
    is_loaded(PROFILE) && is_loaded(OTHER_PROFILE)
}

/// Whether SELinux is in force with the policy.
pub(crate) fn selinux() -> bool {
    let enforces = fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "1");
    enforces && fs::read_to_string("/proc/self/attr/current").is_ok_and(|label| label.starts_with("keel_u:"))
}
