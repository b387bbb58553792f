//! `update`: limits and restart policy of a container, in force at once.

use bollard_stubs::models::{ContainerCreateBody, ContainerUpdateBody, HostConfig};
use keel_oci::spec::Pids;
use serde_json::Value;

use crate::disk::Config;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::plan::{bad, refuse, resources};
use crate::restart::Policy;

/// What can be changed.
const CHANGEABLE: [&str; 12] = [
    "BlkioWeight",
    "CpuPeriod",
    "CpuQuota",
    "CpuShares",
    "CpusetCpus",
    "CpusetMems",
    "Memory",
    "MemoryReservation",
    "MemorySwap",
    "NanoCpus",
    "PidsLimit",
    "RestartPolicy",
];

impl Engine {
    /// Changes a container's limits and restart policy. What is left out, or 0, stays as it is.
    pub fn update(&self, wanted: &str, change: &ContainerUpdateBody) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let _gate = container.enter();
        let before = container.config();
        let host = changed(before.body.host_config.clone().unwrap_or_default(), change)?;
        let auto_remove = host.auto_remove == Some(true);
        if auto_remove && Policy::new(host.restart_policy.as_ref())? != Policy::No {
            let message = "Restart policy cannot be updated because AutoRemove is enabled for the container";
            return Err(Error::BadParameter(message.into()));
        }
        let mut limits = resources::resources(&host)?;
        let body = ContainerCreateBody { host_config: Some(host), ..before.body.clone() };
        refuse::check(&body)?;
        if let Some(cgroup) = self.cgroup(&container).filter(|_| container.state().is_running()) {
            // Unlimited is written, too, or the old limit would stay.
            if change.pids_limit.is_some_and(|limit| limit <= 0) {
                limits.pids = Some(Pids { limit: -1 });
            }
            keel_oci::cgroup::update(&cgroup, &limits).doing(|| format!("Cannot update container {}", container.id))?;
        }
        let after = Config { body, ..Config::clone(&before) };
        if change.memory_reservation.is_some() {
            self.settle_reservations(self.cgroup(&container).as_deref(), &after)?;
        }
        container.set_config(after)?;
        self.tell_of(&container, "update", &[]);
        Ok(())
    }
}

/// The settings with the change in them.
fn changed(host: HostConfig, change: &ContainerUpdateBody) -> Result<HostConfig, Error> {
    let doing = || "reading a container's settings";
    let (mut all, change) = (serde_json::to_value(host).doing(doing)?, serde_json::to_value(change).doing(doing)?);
    for (name, value) in change.as_object().into_iter().flatten() {
        // A limit on processes is taken away by 0 or -1; of all else 0 means "not asked for".
        if is_empty(value) && !(name == "PidsLimit" && value.is_number()) {
            continue;
        }
        if !CHANGEABLE.contains(&name.as_str()) {
            return bad(format!("{name} of a container can't be changed"));
        }
        all[name] = value.clone();
    }
    serde_json::from_value(all).doing(doing)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        // An empty restart policy is Docker's way of not asking for one.
        Value::Object(map) => map.values().all(is_empty),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(host: &str, change: &str) -> Result<HostConfig, Error> {
        changed(serde_json::from_str(host).unwrap(), &serde_json::from_str(change).unwrap())
    }

    #[test]
    fn what_is_left_out_stays() {
        let host = change(
            r#"{"Memory":8000000,"PidsLimit":5,"RestartPolicy":{"Name":"always"}}"#,
            r#"{"Memory":0,"CpuShares":512,"CpusetCpus":"","RestartPolicy":{"Name":"","MaximumRetryCount":0}}"#,
        )
        .unwrap();
        assert_eq!((host.memory, host.cpu_shares, host.pids_limit), (Some(8_000_000), Some(512), Some(5)));
        assert_eq!(Policy::new(host.restart_policy.as_ref()).unwrap(), Policy::Always);
        let host = change(r#"{"PidsLimit":5}"#, r#"{"PidsLimit":-1,"RestartPolicy":{"Name":"no"}}"#).unwrap();
        assert_eq!(host.pids_limit, Some(-1));
    }

    #[test]
    fn what_can_not_change_is_refused_by_name() {
        let error = change("{}", r#"{"CgroupParent":"/x"}"#).unwrap_err();
        assert!(error.to_string().contains("CgroupParent"), "{error}");
    }
}
