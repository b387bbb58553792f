//! One container: the keys of a Compose service, as the body of `POST /containers/create`.

use serde_json::{Map, Value as Json, json};

use super::super::declared::{DeclaredContainer, PullPolicy};
use super::super::{ConfigError, check};
use super::fields::Fields;
use super::joins::{self, Scope};
use super::node::{Node, Value, refuse};
use super::values::{self, Kind};
use super::{mounts, ports};

/// Keys whose value goes to one place of the request.
const PLAIN: &[(&str, &str, Kind)] = &[
    ("annotations", "HostConfig.Annotations", Kind::Pairs),
    ("cap_add", "HostConfig.CapAdd", Kind::Texts),
    ("cap_drop", "HostConfig.CapDrop", Kind::Texts),
    ("cgroup", "HostConfig.CgroupnsMode", Kind::Text),
    ("cgroup_parent", "HostConfig.CgroupParent", Kind::Text),
    ("command", "Cmd", Kind::Words),
    ("cpu_period", "HostConfig.CpuPeriod", Kind::Number),
    ("cpu_quota", "HostConfig.CpuQuota", Kind::Number),
    ("cpu_shares", "HostConfig.CpuShares", Kind::Number),
    ("cpus", "HostConfig.NanoCpus", Kind::Billionths),
    ("cpuset", "HostConfig.CpusetCpus", Kind::Text),
    ("device_cgroup_rules", "HostConfig.DeviceCgroupRules", Kind::Texts),
    ("dns", "HostConfig.Dns", Kind::Texts),
    ("dns_opt", "HostConfig.DnsOptions", Kind::Texts),
    ("dns_search", "HostConfig.DnsSearch", Kind::Texts),
    ("domainname", "Domainname", Kind::Text),
    ("entrypoint", "Entrypoint", Kind::Words),
    ("environment", "Env", Kind::Variables),
    ("extra_hosts", "HostConfig.ExtraHosts", Kind::Hosts),
    ("group_add", "HostConfig.GroupAdd", Kind::Texts),
    ("hostname", "Hostname", Kind::Text),
    ("init", "HostConfig.Init", Kind::Flag),
    ("labels", "Labels", Kind::Pairs),
    ("mem_limit", "HostConfig.Memory", Kind::Bytes),
    ("mem_reservation", "HostConfig.MemoryReservation", Kind::Bytes),
    ("memswap_limit", "HostConfig.MemorySwap", Kind::Bytes),
    ("oom_score_adj", "HostConfig.OomScoreAdj", Kind::Number),
    ("pids_limit", "HostConfig.PidsLimit", Kind::Number),
    ("privileged", "HostConfig.Privileged", Kind::Flag),
    ("read_only", "HostConfig.ReadonlyRootfs", Kind::Flag),
    ("security_opt", "HostConfig.SecurityOpt", Kind::Texts),
    ("shm_size", "HostConfig.ShmSize", Kind::Bytes),
    ("stdin_open", "OpenStdin", Kind::Flag),
    ("stop_grace_period", "StopTimeout", Kind::Seconds),
    ("stop_signal", "StopSignal", Kind::Text),
    ("sysctls", "HostConfig.Sysctls", Kind::Pairs),
    ("tty", "Tty", Kind::Flag),
    ("user", "User", Kind::Text),
    ("userns_mode", "HostConfig.UsernsMode", Kind::Text),
    ("uts", "HostConfig.UTSMode", Kind::Text),
    ("working_dir", "WorkingDir", Kind::Text),
];

/// Puts a value at `Key` or `HostConfig.Key`.
pub fn set(body: &mut Json, path: &str, value: Json) {
    let mut at = body;
    for key in path.split('.') {
        if !at.is_object() {
            *at = Json::Object(Map::new());
        }
        at = &mut at[key];
    }
    *at = value;
}

/// Reads one. `key`: the service's own name, where it is an entry of `services`.
pub fn read(path: &str, node: &Node, key: Option<&str>, scope: &Scope) -> Result<DeclaredContainer, ConfigError> {
    let mut fields = Fields::open(path, node)?;
    let given = fields.text(if key.is_some() { "container_name" } else { "name" })?;
    let Some(name) = given.or_else(|| key.map(str::to_owned)) else {
        return refuse(node.at, path, "has no name");
    };
    check::object_name(&name).or_else(|why| refuse(node.at, path, format!("name = {name:.60?} {why}")))?;
    let image = fields.needed("image")?;
    let mut body = json!({ "Image": image });
    for (key, place, kind) in PLAIN {
        if let Some(value) = fields.json(key, *kind)? {
            set(&mut body, place, value);
        }
    }
    let mut depends_on = joins::depends_on(&mut fields, scope)?;
    joins::networks(&mut fields, &mut body, scope, key, &mut depends_on)?;
    ports::read(&mut fields, &mut body)?;
    mounts::read(&mut fields, &mut body, scope)?;
    restart(&mut fields, &mut body)?;
    health(&mut fields, &mut body)?;
    limits(&mut fields, &mut body)?;
    ulimits(&mut fields, &mut body)?;
    devices(&mut fields, &mut body)?;
    block_io(&mut fields, &mut body)?;
    logging(&mut fields, &mut body)?;
    let pull = pull(&mut fields)?;
    fields.finish()?;
    Ok(DeclaredContainer { name, image, pull, depends_on, create: body })
}

fn pull(fields: &mut Fields<'_>) -> Result<PullPolicy, ConfigError> {
    let at = fields.at;
    match fields.text("pull_policy")?.as_deref() {
        None | Some("missing" | "if_not_present") => Ok(PullPolicy::Missing),
        Some("always") => Ok(PullPolicy::Always),
        Some("never") => Ok(PullPolicy::Never),
        Some(other) => refuse(at, &fields.name("pull_policy"), format!("= {other:.40?}: want missing, always, never")),
    }
}

/// Without a word it is filled in when all containers are known.
fn restart(fields: &mut Fields<'_>, body: &mut Json) -> Result<(), ConfigError> {
    let name = fields.name("restart");
    let Some(node) = fields.take("restart") else { return Ok(()) };
    let text = node.text(&name)?;
    let (word, count) = text.split_once(':').unwrap_or((&text, ""));
    let count = if count.is_empty() { Some(0) } else { count.parse::<u32>().ok() };
    let policy = match (word, count) {
        ("no" | "false", Some(0)) => json!({ "Name": "no" }),
        ("always" | "unless-stopped", Some(0)) => json!({ "Name": word }),
        ("on-failure", Some(count)) => json!({ "Name": word, "MaximumRetryCount": count }),
        _ => {
            return refuse(node.at, &name, format!("= {text:.40?}: want no, always, unless-stopped or on-failure[:N]"));
        }
    };
    set(body, "HostConfig.RestartPolicy", policy);
    Ok(())
}

fn health(fields: &mut Fields<'_>, body: &mut Json) -> Result<(), ConfigError> {
    let path = fields.name("healthcheck");
    let Some(node) = fields.take("healthcheck") else { return Ok(()) };
    let mut inner = Fields::open(&path, node)?;
    let mut check = json!({});
    let test_path = inner.name("test");
    if let Some(test) = inner.take("test") {
        let words = match &test.value {
            Value::Text(line) => vec!["CMD-SHELL".into(), line.clone()],
            _ => values::texts(&test_path, test)?,
        };
        if !matches!(words.first().map(String::as_str), Some("NONE" | "CMD" | "CMD-SHELL")) {
            return refuse(test.at, &test_path, "begins with none of CMD, CMD-SHELL, NONE");
        }
        check["Test"] = json!(words);
    }
    for (key, place) in [
        ("interval", "Interval"),
        ("timeout", "Timeout"),
        ("start_period", "StartPeriod"),
        ("start_interval", "StartInterval"),
    ] {
        if let Some(value) = inner.json(key, Kind::Nanoseconds)? {
            check[place] = value;
        }
    }
    if let Some(retries) = inner.json("retries", Kind::Number)? {
        check["Retries"] = retries;
    }
    if inner.flag("disable")? == Some(true) {
        check = json!({ "Test": ["NONE"] });
    }
    inner.finish()?;
    body["Healthcheck"] = check;
    Ok(())
}

/// `deploy.resources`; what of `deploy` is for swarms is refused.
fn limits(fields: &mut Fields<'_>, body: &mut Json) -> Result<(), ConfigError> {
    let path = fields.name("deploy");
    let Some(node) = fields.take("deploy") else { return Ok(()) };
    let mut deploy = Fields::open(&path, node)?;
    let path = deploy.name("resources");
    if let Some(node) = deploy.take("resources") {
        let mut resources = Fields::open(&path, node)?;
        for (part, keys) in [
            (
                "limits",
                &[
                    ("cpus", "HostConfig.NanoCpus", Kind::Billionths),
                    ("memory", "HostConfig.Memory", Kind::Bytes),
                    ("pids", "HostConfig.PidsLimit", Kind::Number),
                ][..],
            ),
            ("reservations", &[("memory", "HostConfig.MemoryReservation", Kind::Bytes)][..]),
        ] {
            let path = resources.name(part);
            let Some(node) = resources.take(part) else { continue };
            let mut part = Fields::open(&path, node)?;
            for (key, place, kind) in keys {
                if let Some(value) = part.json(key, *kind)? {
                    set(body, place, value);
                }
            }
            part.finish()?;
        }
        resources.finish()?;
    }
    deploy.finish()
}

fn ulimits(fields: &mut Fields<'_>, body: &mut Json) -> Result<(), ConfigError> {
    let path = fields.name("ulimits");
    let Some(node) = fields.take("ulimits") else { return Ok(()) };
    let mut all = Vec::new();
    for (key, node) in node.table(&path)? {
        let path = format!("{path}.{}", key.text);
        let (soft, hard) = if node.is_table() {
            let mut inner = Fields::open(&path, node)?;
            let (soft, hard) = (inner.json("soft", Kind::Number)?, inner.json("hard", Kind::Number)?);
            inner.finish()?;
            match (soft, hard) {
                (Some(soft), Some(hard)) => (soft, hard),
                _ => return refuse(node.at, &path, "wants soft and hard, or one number"),
            }
        } else {
            let both = json!(values::number(&path, node)?);
            (both.clone(), both)
        };
        all.push(json!({ "Name": key.text, "Soft": soft, "Hard": hard }));
    }
    set(body, "HostConfig.Ulimits", json!(all));
    Ok(())
}

/// `host[:inside[:rwm]]`
fn devices(fields: &mut Fields<'_>, body: &mut Json) -> Result<(), ConfigError> {
    let path = fields.name("devices");
    let Some(node) = fields.take("devices") else { return Ok(()) };
    let device = |text: String| {
        let mut parts = text.splitn(3, ':');
        let host = parts.next().unwrap_or_default();
        let (inside, access) = (parts.next().unwrap_or(host), parts.next().unwrap_or("rwm"));
        json!({ "PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access })
    };
    let all: Vec<Json> = values::texts(&path, node)?.into_iter().map(device).collect();
    set(body, "HostConfig.Devices", json!(all));
    Ok(())
}

fn block_io(fields: &mut Fields<'_>, body: &mut Json) -> Result<(), ConfigError> {
    let path = fields.name("blkio_config");
    let Some(node) = fields.take("blkio_config") else { return Ok(()) };
    let mut inner = Fields::open(&path, node)?;
    if let Some(weight) = inner.json("weight", Kind::Number)? {
        set(body, "HostConfig.BlkioWeight", weight);
    }
    for (key, place, kind) in [
        ("device_read_bps", "HostConfig.BlkioDeviceReadBps", Kind::Bytes),
        ("device_write_bps", "HostConfig.BlkioDeviceWriteBps", Kind::Bytes),
        ("device_read_iops", "HostConfig.BlkioDeviceReadIOps", Kind::Number),
        ("device_write_iops", "HostConfig.BlkioDeviceWriteIOps", Kind::Number),
    ] {
        let path = inner.name(key);
        let Some(node) = inner.take(key) else { continue };
        let mut all = Vec::new();
        for node in node.list(&path)? {
            let mut entry = Fields::open(&path, node)?;
            let device = entry.needed("path")?;
            let rate = entry.json("rate", kind)?;
            entry.finish()?;
            all.push(json!({ "Path": device, "Rate": rate }));
        }
        set(body, place, json!(all));
    }
    inner.finish()
}

fn logging(fields: &mut Fields<'_>, body: &mut Json) -> Result<(), ConfigError> {
    let path = fields.name("logging");
    let Some(node) = fields.take("logging") else { return Ok(()) };
    let mut inner = Fields::open(&path, node)?;
    let driver = inner.text("driver")?.unwrap_or_else(|| "json-file".into());
    let options = inner.json("options", Kind::Pairs)?.unwrap_or_else(|| json!({}));
    inner.finish()?;
    set(body, "HostConfig.LogConfig", json!({ "Type": driver, "Config": options }));
    Ok(())
}
