//! Namespaces, privileges, filters.

use bollard_stubs::models::{ContainerCreateBody, HostConfig, HostConfigCgroupnsModeEnum};
use keel_oci::defaults;
use keel_oci::spec::{Namespace, NamespaceKind};

use super::bad;
use super::networks::{self, Mode};
use crate::error::Error;

/// All capabilities of Linux 6.12 (capability.h), in their order.
const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// What a container may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// Capabilities.
    pub capabilities: Vec<String>,
    /// Whether a system call filter applies.
    pub filtered: bool,
    /// The client's own filter in place of the default one, in Docker's JSON.
    pub profile: Option<String>,
    /// AppArmor profile to execute the process under.
    pub apparmor: Option<String>,
    /// `PR_SET_NO_NEW_PRIVS`.
    pub no_new_privileges: bool,
    /// All of the host's devices, nothing masked.
    pub privileged: bool,
    /// Whether it has a user namespace of its own.
    pub own_users: bool,
    /// New namespaces.
    pub namespaces: Vec<Namespace>,
}

/// What was asked for.
pub fn security(body: &ContainerCreateBody) -> Result<Security, Error> {
    let default = HostConfig::default();
    let host = body.host_config.as_ref().unwrap_or(&default);
    let privileged = host.privileged == Some(true);
    let (mut filtered, mut no_new_privileges) = (!privileged, false);
    let (mut profile, mut apparmor) = (None, None);
    for option in host.security_opt.iter().flatten() {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        match (name, value) {
            ("seccomp", "unconfined") => (filtered, profile) = (false, None),
            ("seccomp", "builtin") => (filtered, profile) = (!privileged, None),
            ("seccomp", json) if json.trim_start().starts_with('{') => (filtered, profile) = (true, Some(json.into())),
            ("no-new-privileges", "" | "true") => no_new_privileges = true,
            ("no-new-privileges", "false") => no_new_privileges = false,
            // SELinux isn't there to be turned off.
            ("apparmor", "unconfined") | ("label", "disable") => apparmor = None,
            ("apparmor", name) if is_profile_name(name) => apparmor = Some(name.into()),
            _ => return bad(format!("invalid --security-opt 2: {option:.60}: it isn't supported")),
        }
    }
    let shares = shared_with_host(body)?;
    let own_users = !privileged && shares.is_empty() && host.userns_mode.as_deref() != Some("host");
    let kept = |kind: &NamespaceKind| !shares.contains(kind) && (*kind != NamespaceKind::User || own_users);
    let not_cgroup = host.cgroupns_mode == Some(HostConfigCgroupnsModeEnum::HOST);
    let not_uts = host.uts_mode.as_deref() == Some("host");
    let kept = |namespace: &Namespace| {
        kept(&namespace.kind)
            && !(not_cgroup && namespace.kind == NamespaceKind::Cgroup)
            && !(not_uts && namespace.kind == NamespaceKind::Uts)
    };
    let mut namespaces: Vec<Namespace> = defaults::namespaces().into_iter().filter(kept).collect();
    if matches!(networks::mode(body)?, Mode::Container(_)) {
        // Its start says where that is.
        for namespace in namespaces.iter_mut().filter(|namespace| namespace.kind == NamespaceKind::Network) {
            namespace.path = Some(String::new());
        }
    }
    shares_users_of(body)?;
    for (kind, mode) in [(NamespaceKind::Pid, &host.pid_mode), (NamespaceKind::Ipc, &host.ipc_mode)] {
        let joins = mode.as_deref().is_some_and(|mode| mode.starts_with("container:"));
        for namespace in namespaces.iter_mut().filter(|namespace| joins && namespace.kind == kind) {
            namespace.path = Some(String::new());
        }
    }
    let capabilities = capabilities(host, privileged)?;
    Ok(Security { capabilities, filtered, profile, apparmor, no_new_privileges, privileged, own_users, namespaces })
}

fn is_profile_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The container whose user namespace one has to be in because it shares its processes or IPC; checks these modes.
pub fn shares_users_of(body: &ContainerCreateBody) -> Result<Option<&str>, Error> {
    let Some(host) = &body.host_config else { return Ok(None) };
    let of = |what: &str, mode: &Option<String>, known: &[&str]| -> Result<Option<String>, Error> {
        let mode = mode.as_deref().unwrap_or_default();
        match mode.strip_prefix("container:") {
            Some("") => bad(format!("invalid {what} mode: {mode}")),
            Some(name) => Ok(Some(name.into())),
            None if known.contains(&mode) => Ok(None),
            None => bad(format!("invalid {what} mode: {mode:.60}")),
        }
    };
    let pid = of("PID", &host.pid_mode, &["", "host", "private"])?;
    let ipc = of("IPC", &host.ipc_mode, &["", "host", "none", "private", "shareable"])?;
    if let (Some(pid), Some(ipc)) = (&pid, &ipc)
        && pid != ipc
    {
        return bad(format!("the processes of {pid:.60} and the IPC of {ipc:.60} can't both be shared"));
    }
    let own = host.privileged != Some(true) && host.userns_mode.as_deref() != Some("host");
    let modes = [&host.pid_mode, &host.ipc_mode].into_iter().flatten();
    Ok(modes.filter_map(|mode| mode.strip_prefix("container:")).next().filter(|_| own))
}

/// Namespaces of the host that it shares and whose file systems (sysfs, proc, mqueue) the kernel lets only their
/// owning user namespace mount. So a container that shares one can't have a user namespace of its own.
pub fn shared_with_host(body: &ContainerCreateBody) -> Result<Vec<NamespaceKind>, Error> {
    let host = body.host_config.as_ref();
    let mut shares = Vec::new();
    if networks::mode(body)? == Mode::Host {
        shares.push(NamespaceKind::Network);
    }
    if host.is_some_and(|host| host.pid_mode.as_deref() == Some("host")) {
        shares.push(NamespaceKind::Pid);
    }
    if host.is_some_and(|host| host.ipc_mode.as_deref() == Some("host")) {
        shares.push(NamespaceKind::Ipc);
    }
    Ok(shares)
}

fn capabilities(host: &HostConfig, privileged: bool) -> Result<Vec<String>, Error> {
    let names =
        |list: &Option<Vec<String>>| list.iter().flatten().map(|name| known(name)).collect::<Result<Vec<_>, _>>();
    let (add, drop) = (names(&host.cap_add)?, names(&host.cap_drop)?);
    let all = |list: &[String]| list.iter().any(|name| name == "ALL");
    let chosen = |name: &str| {
        let default = privileged || defaults::CAPABILITIES.contains(&name);
        let listed = |list: &[String]| list.iter().any(|known| known == name);
        // One that is named beats ALL on the other side, as with Docker.
        if all(&add) {
            return !listed(&drop);
        }
        listed(&add) || (default && !all(&drop) && !listed(&drop))
    };
    Ok(ALL.iter().filter(|name| chosen(name)).map(|name| (*name).into()).collect())
}

fn known(name: &str) -> Result<String, Error> {
    let upper = name.to_ascii_uppercase();
    let full = if upper == "ALL" || upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    if full == "ALL" || ALL.contains(&full.as_str()) {
        Ok(full)
    } else {
        bad(format!("invalid capability: unknown capability: {full:.40?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Security {
        security(&serde_json::from_str(json).unwrap()).unwrap()
    }

    #[test]
    fn the_default_is_strict() {
        let security = of("{}");
        assert!(security.own_users && security.filtered && !security.privileged);
        assert_eq!(security.capabilities.len(), defaults::CAPABILITIES.len());
        assert_eq!(security.namespaces.len(), 7);
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_dockers() {
        let caps = |json: &str| of(json).capabilities;
        assert_eq!(caps(r#"{"HostConfig":{"CapDrop":["ALL"]}}"#), Vec::<String>::new());
        assert_eq!(caps(r#"{"HostConfig":{"CapDrop":["all"],"CapAdd":["net_admin"]}}"#), ["CAP_NET_ADMIN"]);
        assert_eq!(caps(r#"{"HostConfig":{"CapAdd":["ALL"],"CapDrop":["MKNOD"]}}"#).len(), ALL.len() - 1);
        assert_eq!(caps(r#"{"HostConfig":{"Privileged":true}}"#).len(), ALL.len());
    }

    #[test]
    fn sharing_a_namespace_gives_up_the_user_namespace() {
        let security = of(r#"{"HostConfig":{"NetworkMode":"host"}}"#);
        assert!(!security.own_users);
        assert!(!security.namespaces.iter().any(|n| matches!(n.kind, NamespaceKind::Network | NamespaceKind::User)));
    }

    #[test]
    fn unknown_options_are_refused() {
        for json in [r#"{"HostConfig":{"CapAdd":["FLY"]}}"#, r#"{"HostConfig":{"SecurityOpt":["label=user:x"]}}"#] {
            assert!(security(&serde_json::from_str(json).unwrap()).is_err(), "{json}");
        }
    }
}
