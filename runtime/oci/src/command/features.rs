//! `features` and `--version`: what this program can do.

use serde_json::json;

use super::Result;
use super::show::print;
use crate::{caps, options, seccomp};

/// `--version`.
pub(super) fn version() {
    println!("keel-oci version {}", env!("CARGO_PKG_VERSION"));
    println!("spec: {}", crate::OCI_VERSION);
    println!("+CAP +SECCOMP +SECCOMP_NOTIFY +APPARMOR +SELINUX +CGROUPV2 +EBPF +IDMAP");
}

/// `features` (features.md of the specification).
pub(super) fn features() -> Result<u8> {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": crate::OCI_VERSION,
        "hooks": ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"],
        "mountOptions": options::names(),
        "linux": {
            "namespaces": ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"],
            "capabilities": caps::all(),
            "cgroup": { "v1": false, "v2": true, "systemd": false, "systemdUser": false, "rdma": true },
            "seccomp": {
                "enabled": true,
                "actions": seccomp::ACTIONS,
                "operators": seccomp::OPERATORS,
                "archs": seccomp::ARCHITECTURES,
                "knownFlags": seccomp::flags(),
                "supportedFlags": seccomp::flags(),
            },
            "apparmor": { "enabled": true },
            "selinux": { "enabled": true },
            "intelRdt": { "enabled": true },
            "mountExtensions": { "idmap": { "enabled": true } },
        },
        "annotations": { "org.keel.oci.version": env!("CARGO_PKG_VERSION") },
    });
    print(&serde_json::to_string_pretty(&features)?)?;
    Ok(0)
}
