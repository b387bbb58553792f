//! `features`: what the runtime says of itself.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::Lab;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("features.versions", "features.md", versions),
    Case::new("features.hooks", "features.md#hooks", hooks),
    Case::new("features.mount-options", "features.md#mount-options", mount_options),
    Case::new("features.mount-options-are-true", "features.md#mount-options", mount_options_true),
    Case::new("features.namespaces", "features-linux.md#namespaces", namespaces),
    Case::new("features.namespaces-are-true", "features-linux.md#namespaces", namespaces_true),
    Case::new("features.capabilities", "features-linux.md#capabilities", capabilities),
    Case::new("features.cgroup", "features-linux.md#cgroup", cgroup),
    Case::new("features.seccomp", "features-linux.md#seccomp", seccomp),
    Case::new("features.idmap", "features-linux.md#mount-extensions", idmap),
];

fn features(lab: &Lab) -> Result<Value> {
    let text = lab.call_ok(&["features"])?.stdout;
    serde_json::from_str(&text).with_context(|| format!("`features` isn't JSON: {text}"))
}

fn list(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn all_of(value: &Value, wanted: &[&str], what: &str) -> Result<()> {
    let found = list(value);
    let missing: Vec<&&str> = wanted.iter().filter(|word| !found.contains(word)).collect();
    ensure!(missing.is_empty(), "{what}: {missing:?} missing of {found:?}");
    Ok(())
}

fn versions(lab: &Lab) -> Result<()> {
    let features = features(lab)?;
    for key in ["ociVersionMin", "ociVersionMax"] {
        ensure!(features[key].as_str().is_some_and(|v| v.starts_with("1.")), "{key}: {}", features[key]);
    }
    Ok(())
}

fn hooks(lab: &Lab) -> Result<()> {
    let wanted = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    all_of(&features(lab)?["hooks"], &wanted, "hooks")
}

fn mount_options(lab: &Lab) -> Result<()> {
    let wanted = [
        "bind",
        "rbind",
        "ro",
        "rw",
        "rro",
        "nosuid",
        "nodev",
        "noexec",
        "private",
        "rprivate",
        "shared",
        "rshared",
        "slave",
        "rslave",
        "unbindable",
        "runbindable",
        "noatime",
        "relatime",
        "strictatime",
        "nodiratime",
        "tmpcopyup",
    ];
    all_of(&features(lab)?["mountOptions"], &wanted, "mountOptions")
}

fn mount_options_true(lab: &Lab) -> Result<()> {
    let features = features(lab)?;
    for option in list(&features["mountOptions"]) {
        // Some need a bind mount, or something that isn't there.
        if option.contains("bind")
            || option.contains("idmap")
            || ["remount", "tmpcopyup", "copy-symlink", "mand", "iversion"].contains(&option)
            || option.contains("lazytime")
            || option == "silent"
            || option == "loud"
        {
            continue;
        }
        let output = lab.run_any(&lab.spec().mount("/work", "tmpfs", "tmpfs", &[option]))?;
        ensure!(
            output.code == 0,
            "the option {option} is listed, but a tmpfs with it isn't mounted: {}",
            output.stderr.trim()
        );
    }
    Ok(())
}

fn namespaces(lab: &Lab) -> Result<()> {
    let wanted = ["cgroup", "ipc", "mount", "network", "pid", "user", "uts"];
    all_of(&features(lab)?["linux"]["namespaces"], &wanted, "linux.namespaces")
}

fn namespaces_true(lab: &Lab) -> Result<()> {
    let features = features(lab)?;
    for kind in list(&features["linux"]["namespaces"]) {
        let spec = if kind == "user" { super::namespaces::mapped(lab)? } else { lab.spec().new_namespace(kind) };
        lab.see(&spec).with_context(|| format!("the namespace {kind} is listed"))?;
    }
    Ok(())
}

fn capabilities(lab: &Lab) -> Result<()> {
    all_of(&features(lab)?["linux"]["capabilities"], &["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_BPF"], "linux.capabilities")
}

fn cgroup(lab: &Lab) -> Result<()> {
    let features = features(lab)?;
    for key in ["v1", "v2", "systemd", "systemdUser"] {
        ensure!(features["linux"]["cgroup"][key].is_boolean(), "linux.cgroup.{key}: {}", features["linux"]["cgroup"]);
    }
    same!(features["linux"]["cgroup"]["v2"], true, "linux.cgroup.v2");
    Ok(())
}

fn seccomp(lab: &Lab) -> Result<()> {
    let seccomp = features(lab)?["linux"]["seccomp"].clone();
    same!(seccomp["enabled"], true, "linux.seccomp.enabled");
    let actions = [
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
        "SCMP_ACT_TRAP",
    ];
    all_of(&seccomp["actions"], &actions, "linux.seccomp.actions")?;
    all_of(&seccomp["operators"], &["SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"], "linux.seccomp.operators")?;
    all_of(&seccomp["archs"], &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"], "linux.seccomp.archs")
}

fn idmap(lab: &Lab) -> Result<()> {
    same!(features(lab)?["linux"]["mountExtensions"], json!({ "idmap": { "enabled": true } }), "linux.mountExtensions");
    Ok(())
}
