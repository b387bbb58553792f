//! `spec`: a configuration to begin with.

use std::path::Path;

use super::Result;
use super::args::Args;
use super::report::{Doing, Failure};
use crate::defaults;
use crate::spec::{
    Capabilities, DeviceRule, IdMapping, Linux, Namespace, NamespaceKind, Process, Resources, Rlimit, Root, Spec,
};

/// `spec`: writes `config.json`, in the bundle if one is named; never over one that is there.
pub(super) fn spec(args: &Args) -> Result<u8> {
    args.at_most(0)?;
    let path = args.path("bundle").unwrap_or_else(|| Path::new(".").into()).join("config.json");
    if path.exists() {
        return Err(Failure::new(format!("{} exists already; remove it first", path.display())));
    }
    let text = serde_json::to_string_pretty(&template(args.has("rootless")))?;
    std::fs::write(&path, text + "\n").doing(|| format!("write {}", path.display()))?;
    Ok(0)
}

fn template(rootless: bool) -> Spec {
    let held = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"].map(String::from).to_vec();
    let limit = Rlimit { kind: "RLIMIT_NOFILE".into(), hard: 1024, soft: 1024 };
    let mut namespaces = defaults::namespaces();
    // Whose user namespace is whose can't be known beforehand; a rootless one maps its maker alone.
    namespaces.retain(|n: &Namespace| rootless || n.kind != NamespaceKind::User);
    let mapping = |id: u32| rootless.then_some(IdMapping { container_id: 0, host_id: id, size: 1 });
    let deny = DeviceRule { allow: false, access: Some("rwm".into()), ..DeviceRule::default() };
    Spec {
        oci_version: crate::OCI_VERSION.into(),
        root: Some(Root { path: "rootfs".into(), readonly: true }),
        hostname: Some("keel".into()),
        mounts: defaults::mounts(),
        process: Process {
            terminal: true,
            args: vec!["sh".into()],
            env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(), "TERM=xterm".into()],
            cwd: "/".into(),
            capabilities: Some(Capabilities {
                bounding: held.clone(),
                effective: held.clone(),
                permitted: held,
                ..Capabilities::default()
            }),
            rlimits: vec![limit],
            no_new_privileges: true,
            ..Process::default()
        },
        linux: Linux {
            namespaces,
            uid_mappings: mapping(rustix::process::getuid().as_raw()).into_iter().collect(),
            gid_mappings: mapping(rustix::process::getgid().as_raw()).into_iter().collect(),
            resources: (!rootless).then(|| Resources { devices: vec![deny], ..Resources::default() }),
            masked_paths: defaults::MASKED_PATHS.map(String::from).to_vec(),
            readonly_paths: defaults::READONLY_PATHS.map(String::from).to_vec(),
            ..Linux::default()
        },
        ..Spec::default()
    }
}
