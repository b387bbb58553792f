//! Kernel parameters of a container's namespaces: those asked for, and the engine's own.

use std::collections::BTreeMap;

use bollard_stubs::models::{ContainerCreateBody, HostConfig};

use super::bad;
use crate::error::Error;

/// What every container may do in a network namespace of its own: use any port, and `ping`
/// (Documentation/networking/ip-sysctl.rst). Set from the host: a user namespace has no say over a network namespace
/// that isn't its own, so those that share one (`--network container:`) need it, and it can't name groups that it lacks.
const OF_NETWORKS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// The parameters asked for.
pub fn asked(host: &HostConfig) -> Result<BTreeMap<String, String>, Error> {
    let allowed = |name: &str| {
        name.starts_with("net.")
            || name.starts_with("fs.mqueue.")
            || matches!(name, "kernel.msgmax" | "kernel.msgmnb" | "kernel.msgmni" | "kernel.sem")
            || matches!(name, "kernel.shmall" | "kernel.shmmax" | "kernel.shmmni" | "kernel.shm_rmid_forced")
    };
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    for name in host.sysctls.iter().flatten().map(|(name, _)| name) {
        if !allowed(name) || !plain(name) || name.contains("..") {
            return bad(format!("sysctl '{name:.80}' is not allowed: it is not one of the container's own namespaces"));
        }
    }
    Ok(host.sysctls.clone().unwrap_or_default().into_iter().collect())
}

/// The engine's own for a network namespace of the container's own: all that isn't asked for.
pub fn of_network(body: &ContainerCreateBody) -> Vec<(String, String)> {
    let asked = body.host_config.as_ref().and_then(|host| host.sysctls.as_ref());
    let left = OF_NETWORKS.iter().filter(|(name, _)| asked.is_none_or(|asked| !asked.contains_key(*name)));
    left.map(|(name, value)| ((*name).into(), (*value).into())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(sysctls: &str) -> ContainerCreateBody {
        serde_json::from_str(&format!(r#"{{"HostConfig":{{"Sysctls":{sysctls}}}}}"#)).unwrap()
    }

    #[test]
    fn what_is_asked_for_wins_even_if_it_is_what_the_kernel_gives() {
        let names = |body: &ContainerCreateBody| of_network(body).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&ContainerCreateBody::default()).len(), 2);
        let ports = body(r#"{"net.ipv4.ip_unprivileged_port_start":"1024","net.core.somaxconn":"9"}"#);
        assert_eq!(names(&ports), ["net.ipv4.ping_group_range"]);
        assert_eq!(names(&body(r#"{"net.ipv4.ping_group_range":"1 0"}"#)), ["net.ipv4.ip_unprivileged_port_start"]);
    }

    #[test]
    fn parameters_of_the_host_are_refused() {
        for name in ["kernel.panic", "net..x", "net.ipv4/ip_forward", "vm.swappiness"] {
            assert!(asked(&body(&format!(r#"{{"{name}":"1"}}"#)).host_config.unwrap()).is_err(), "{name}");
        }
    }
}
