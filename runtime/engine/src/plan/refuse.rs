//! Options that aren't done yet. Clients send most of them with values that mean "not asked for".

use bollard_stubs::models::{ContainerCreateBody, HostConfig};

use super::bad;
use crate::error::Error;

/// Names under which the runtime may be asked for.
const RUNTIMES: [&str; 4] = ["", "keel", "runc", "io.containerd.runc.v2"];

/// Refuses the first option that can't be honoured.
pub fn check(body: &ContainerCreateBody) -> Result<(), Error> {
    super::logging::logging(body)?;
    body.host_config.as_ref().map_or(Ok(()), check_host_config)
}

fn check_host_config(host: &HostConfig) -> Result<(), Error> {
    if some(host.device_requests.as_ref()) {
        return bad("could not select device driver: --gpus needs a driver in the host's kernel, and Keel has none");
    }
    super::devices::check(host)?;
    super::blkio::check(host)?;
    super::cgroup::parent(Some(host))?;
    // Clients name the one that they know; there is one.
    if let Some(name) = host.runtime.as_ref().filter(|name| !RUNTIMES.contains(&name.as_str())) {
        return bad(format!("unknown or invalid runtime name: {name:.60}"));
    }
    let refused: [(&str, bool); 15] = [
        ("--cpu-rt-period", set(host.cpu_realtime_period)),
        ("--cpu-rt-runtime", set(host.cpu_realtime_runtime)),
        ("--memory-swappiness", host.memory_swappiness.is_some_and(|value| value > 0)),
        ("--oom-kill-disable", host.oom_kill_disable == Some(true)),
        ("CpuCount", set(host.cpu_count)),
        ("CpuPercent", set(host.cpu_percent)),
        ("IOMaximumIOps", set(host.io_maximum_iops)),
        ("IOMaximumBandwidth", set(host.io_maximum_bandwidth)),
        ("Cgroup", filled(host.cgroup.as_ref())),
        ("--storage-opt", host.storage_opt.as_ref().is_some_and(|options| !options.is_empty())),
        ("--uts (other than host)", other(host.uts_mode.as_ref(), &["host"])),
        ("--userns (other than host)", other(host.userns_mode.as_ref(), &["host"])),
        ("--volume-driver", other(host.volume_driver.as_ref(), &["local"])),
        ("--isolation", host.isolation.as_ref().is_some_and(|i| !matches!(i.to_string().as_str(), "" | "default"))),
        ("--dns-opt with line breaks", {
            let all = host.dns_options.iter().chain(&host.dns_search).chain(&host.extra_hosts).chain(&host.dns);
            all.flatten().any(|text| text.contains(['\n', '\r', '\0']))
        }),
    ];
    match refused.iter().find(|(_, asked)| *asked) {
        Some((option, _)) => bad(format!("{option} isn't supported yet")),
        None => Ok(()),
    }
}

fn some<T>(list: Option<&Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

fn filled(text: Option<&String>) -> bool {
    text.is_some_and(|text| !text.is_empty())
}

fn set(number: Option<i64>) -> bool {
    number.is_some_and(|number| number != 0)
}

fn other(text: Option<&String>, known: &[&str]) -> bool {
    text.is_some_and(|text| !text.is_empty() && !known.contains(&text.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_docker_client_sends_by_default_is_accepted() {
        let body = r#"{"Tty":false,"HostConfig":{"LogConfig":{"Type":"","Config":{}},"ConsoleSize":[0,0],
            "VolumeDriver":"","MemorySwappiness":-1,"UTSMode":"","Devices":[],"DeviceRequests":null,"Links":null,
            "CgroupParent":"","Isolation":"","OomScoreAdj":0,"BlkioWeightDevice":[]},
            "NetworkingConfig":{"EndpointsConfig":{"default":{"IPAMConfig":null,"Links":null,"MacAddress":""}}}}"#;
        check(&serde_json::from_str(body).unwrap()).unwrap();
    }

    #[test]
    fn the_runtime_has_dockers_names_and_processes_may_be_spared_the_lack_of_memory() {
        for json in [r#"{"Runtime":"runc"}"#, r#"{"Runtime":"io.containerd.runc.v2"}"#, r#"{"OomScoreAdj":-500}"#] {
            check(&serde_json::from_str(&format!(r#"{{"HostConfig":{json}}}"#)).unwrap()).unwrap();
        }
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (body, word) in [
            (r#"{"HostConfig":{"CgroupParent":"/../x"}}"#, "--cgroup-parent"),
            (r#"{"HostConfig":{"OomKillDisable":true}}"#, "--oom-kill-disable"),
            (r#"{"HostConfig":{"Runtime":"gvisor"}}"#, "runtime name: gvisor"),
        ] {
            let error = check(&serde_json::from_str(body).unwrap()).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
