//! `linux.cgroupsPath` and `linux.resources`, in cgroup v2; `update`, `events`.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::Lab;
use crate::spec::Spec;

const PATH: &str = "config-linux.md#cgroups-path";

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::v2("cgroup.absolute-path", PATH, absolute),
    Case::v2("cgroup.relative-path", PATH, relative),
    Case::v2("cgroup.without-a-path", PATH, pathless),
    Case::v2("cgroup.is-removed-with-the-container", PATH, removed),
    Case::v2("cgroup.is-removed-with-those-below", PATH, removed_below),
    Case::v2("cgroup.controllers-are-enabled", "config-linux.md#cgroup-ownership", controllers),
    Case::v2("cgroup.belongs-to-the-containers-root", "config-linux.md#cgroup-ownership", owned),
    Case::v2("cgroup.memory-limit", "config-linux.md#memory", memory),
    Case::v2("cgroup.memory-reservation", "config-linux.md#memory", reservation),
    Case::v2("cgroup.memory-and-swap", "config-linux.md#memory", swap),
    Case::v2("cgroup.memory-unlimited", "config-linux.md#memory", memory_unlimited),
    Case::v2("cgroup.memory-limit-is-enforced", "config-linux.md#memory", oom),
    Case::v2("cgroup.cpu-shares-become-weight", "config-linux.md#cpu", shares),
    Case::v2("cgroup.cpu-quota-and-period", "config-linux.md#cpu", quota),
    Case::v2("cgroup.cpu-quota-unlimited", "config-linux.md#cpu", quota_unlimited),
    Case::v2("cgroup.cpu-burst", "config-linux.md#cpu", burst),
    Case::v2("cgroup.cpu-idle", "config-linux.md#cpu", idle),
    Case::v2("cgroup.cpus-and-memory-nodes", "config-linux.md#cpu", cpuset),
    Case::v2("cgroup.pids-limit", "config-linux.md#pids", pids),
    Case::v2("cgroup.pids-unlimited", "config-linux.md#pids", pids_unlimited),
    Case::v2("cgroup.pids-limit-is-enforced", "config-linux.md#pids", pids_enforced),
    Case::v2("cgroup.huge-pages", "config-linux.md#huge-page-limits", huge_pages),
    Case::v2("cgroup.huge-pages-in-reserve", "config-linux.md#huge-page-limits", huge_pages_reserved),
    Case::v2("cgroup.block-io-weight", "config-linux.md#block-io", io_weight),
    Case::v2("cgroup.impossible-block-io-weight", "config-linux.md#block-io", io_weight_impossible),
    Case::v2("cgroup.what-version-2-lacks-is-refused", "runtime.md#create", version_1),
    Case::v2("cgroup.unified", "config-linux.md#unified", unified),
    Case::v2("cgroup.unified-overrides", "config-linux.md#unified", unified_overrides),
    Case::v2("cgroup.unified-of-an-unknown-file", "config-linux.md#unified", unified_unknown),
    Case::v2("cgroup.unified-cannot-lead-out", "config-linux.md#unified", unified_path),
    Case::v2("cgroup.impossible-limit", "config-linux.md#control-groups", impossible),
    Case::v2("cgroup.namespace-root-is-its-own", "config-linux.md#namespaces", namespace),
    Case::v2("cgroup.a-failed-create-leaves-none", PATH, failed_create),
    Case::v2("cgroup.block-io-throttled", "config-linux.md#block-io", io_max),
    Case::v2("events.what-is-used", "other runtimes", events_stats),
    Case::v2("events.until-the-end", "other runtimes", events),
    Case::v2("update.from-standard-input", "other runtimes", update_input),
    Case::v2("update.from-a-file", "other runtimes", update_file),
    Case::v2("update.by-options", "other runtimes", update_options),
    Case::v2("update.checks-the-use-of-memory-before", "config-linux.md#memory", update_checked),
    Case::v2("update.of-an-unknown-container", "other runtimes", update_unknown),
];

/// A file of the container's cgroup.
fn file(lab: &Lab, name: &str) -> Result<String> {
    let path = format!("/sys/fs/cgroup{}/{name}", lab.cgroups_path());
    Ok(fs::read_to_string(&path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

fn resources(lab: &Lab, value: Value) -> Spec {
    lab.spec().set("/linux/resources", value)
}

/// What files hold while such a container is there.
fn files(lab: &Lab, value: Value, wanted: &[(&str, &str)]) -> Result<()> {
    let container = lab.create(&resources(lab, value), json!([]))?;
    for (name, content) in wanted {
        same!(file(lab, name)?, *content, "{name}");
    }
    container.finish()
}

fn own_cgroup(lab: &Lab, spec: &Spec) -> Result<String> {
    let (container, answers) = lab.hold(spec, json!([["see"]]))?;
    drop(answers);
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid))?;
    container.finish()?;
    Ok(text.trim().trim_start_matches("0::").to_owned())
}

fn absolute(lab: &Lab) -> Result<()> {
    same!(own_cgroup(lab, &lab.spec())?, lab.cgroups_path(), "cgroup");
    Ok(())
}

fn relative(lab: &Lab) -> Result<()> {
    let path = format!("relative-{}", lab.token);
    let own = own_cgroup(lab, &lab.spec().set("/linux/cgroupsPath", json!(path)))?;
    ensure!(own.ends_with(&path), "cgroup: {own}");
    Ok(())
}

fn pathless(lab: &Lab) -> Result<()> {
    let own = own_cgroup(lab, &lab.spec().set("/linux/cgroupsPath", Value::Null))?;
    ensure!(own.contains(&lab.token), "a cgroup that tells of the container was expected: {own}");
    Ok(())
}

fn removed(lab: &Lab) -> Result<()> {
    lab.see(&lab.spec())?;
    ensure!(file(lab, "cgroup.procs").is_err(), "the cgroup is still there");
    Ok(())
}

fn removed_below(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    fs::create_dir_all(format!("/sys/fs/cgroup{}/a/b", lab.cgroups_path()))?;
    container.finish()?;
    ensure!(file(lab, "cgroup.procs").is_err(), "the cgroup is still there");
    Ok(())
}

fn controllers(lab: &Lab) -> Result<()> {
    let (container, _) =
        lab.hold(&resources(lab, json!({ "pids": { "limit": 50 }, "memory": { "limit": 1 << 28 } })), json!([]))?;
    let list = file(lab, "cgroup.controllers")?;
    for name in ["memory", "pids"] {
        ensure!(list.split(' ').any(|word| word == name), "{name} isn't enabled: {list}");
    }
    container.finish()
}

fn owned(lab: &Lab) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let spec = super::namespaces::mapped(lab)?.new_namespace("cgroup");
    let spec = spec.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev"]);
    let (container, answers) =
        lab.hold(&spec, json!([["mkdir", "/sys/fs/cgroup/below"], ["stat", "/sys/fs/cgroup/cgroup.procs"]]))?;
    let path = format!("/sys/fs/cgroup{}", lab.cgroups_path());
    let listed = fs::read_to_string("/sys/kernel/cgroup/delegate")?;
    ensure!(listed.lines().any(|name| name == "cgroup.procs"), "the kernel's list of what is delegated: {listed}");
    for name in [""].into_iter().chain(listed.lines()) {
        match fs::metadata(format!("{path}/{name}")) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            found => same!(found?.uid(), 100_000, "owner of {name:?}"),
        }
    }
    same!(fs::metadata(format!("{path}/memory.max"))?.uid(), 0, "owner of memory.max");
    answers.ok(0).context("the container's root can't make a cgroup")?;
    container.finish()
}

fn memory(lab: &Lab) -> Result<()> {
    files(lab, json!({ "memory": { "limit": 64 << 20 } }), &[("memory.max", "67108864")])
}

fn reservation(lab: &Lab) -> Result<()> {
    files(lab, json!({ "memory": { "limit": 64 << 20, "reservation": 32 << 20 } }), &[("memory.low", "33554432")])
}

fn swap(lab: &Lab) -> Result<()> {
    let wanted = [("memory.max", "67108864"), ("memory.swap.max", "16777216")];
    files(lab, json!({ "memory": { "limit": 64 << 20, "swap": 80 << 20 } }), &wanted)
}

fn memory_unlimited(lab: &Lab) -> Result<()> {
    files(lab, json!({ "memory": { "limit": -1 } }), &[("memory.max", "max")])
}

fn oom(lab: &Lab) -> Result<()> {
    let spec = resources(lab, json!({ "memory": { "limit": 24 << 20, "swap": 24 << 20 } }));
    let container = lab.start(&spec, json!([["alloc", 256 << 20]]))?;
    same!(container.wait()?, 128 + 9, "exit code of a program that takes too much memory");
    ensure!(
        file(lab, "memory.events")?.lines().any(|line| line.starts_with("oom_kill ") && line != "oom_kill 0"),
        "no oom_kill"
    );
    container.wait_status("stopped")?;
    container.delete()
}

fn shares(lab: &Lab) -> Result<()> {
    files(lab, json!({ "cpu": { "shares": 2 } }), &[("cpu.weight", "1")])?;
    files(lab, json!({ "cpu": { "shares": 262_144 } }), &[("cpu.weight", "10000")])?;
    let container = lab.create(&resources(lab, json!({ "cpu": { "shares": 1024 } })), json!([]))?;
    let weight: u32 = file(lab, "cpu.weight")?.parse()?;
    // 39 by the old linear rule, 100 by the later one.
    ensure!([39, 100].contains(&weight), "cpu.weight for the default of 1024 shares: {weight}");
    container.finish()
}

fn quota(lab: &Lab) -> Result<()> {
    files(lab, json!({ "cpu": { "quota": 20_000, "period": 50_000 } }), &[("cpu.max", "20000 50000")])?;
    files(lab, json!({ "cpu": { "quota": 20_000 } }), &[("cpu.max", "20000 100000")])
}

fn quota_unlimited(lab: &Lab) -> Result<()> {
    files(lab, json!({ "cpu": { "quota": -1, "period": 50_000 } }), &[("cpu.max", "max 50000")])
}

fn burst(lab: &Lab) -> Result<()> {
    files(lab, json!({ "cpu": { "quota": 20_000, "period": 50_000, "burst": 10_000 } }), &[("cpu.max.burst", "10000")])
}

fn idle(lab: &Lab) -> Result<()> {
    files(lab, json!({ "cpu": { "idle": 1 } }), &[("cpu.idle", "1")])
}

fn cpuset(lab: &Lab) -> Result<()> {
    files(lab, json!({ "cpu": { "cpus": "0", "mems": "0" } }), &[("cpuset.cpus", "0"), ("cpuset.mems", "0")])
}

fn pids(lab: &Lab) -> Result<()> {
    files(lab, json!({ "pids": { "limit": 77 } }), &[("pids.max", "77")])
}

fn pids_unlimited(lab: &Lab) -> Result<()> {
    files(lab, json!({ "pids": { "limit": -1 } }), &[("pids.max", "max")])
}

fn pids_enforced(lab: &Lab) -> Result<()> {
    let (container, answers) = lab.hold(&resources(lab, json!({ "pids": { "limit": 10 } })), json!([["spawn", 20]]))?;
    let started = answers.ok(0)?.as_i64().unwrap_or(0);
    ensure!((1..10).contains(&started), "{started} further processes were started with a limit of 10");
    container.finish()
}

fn huge_pages(lab: &Lab) -> Result<()> {
    files(
        lab,
        json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] }),
        &[("hugetlb.2MB.max", "4194304")],
    )
}

fn huge_pages_reserved(lab: &Lab) -> Result<()> {
    let limits = json!({ "hugepageLimits": [{ "pageSize": "2MB", "limit": 4 << 20 }] });
    files(lab, limits, &[("hugetlb.2MB.rsvd.max", "4194304")])
}

/// By whichever scheduler the kernel has.
fn io_weight(lab: &Lab) -> Result<()> {
    let container = lab.create(&resources(lab, json!({ "blockIO": { "weight": 750 } })), json!([]))?;
    match file(lab, "io.bfq.weight") {
        Ok(weight) => same!(weight, "default 750", "io.bfq.weight"),
        Err(_) => same!(file(lab, "io.weight")?, "default 7475", "io.weight"),
    }
    container.finish()
}

fn io_weight_impossible(lab: &Lab) -> Result<()> {
    lab.refused(&resources(lab, json!({ "blockIO": { "weight": 20_000 } }))).map(drop)
}

/// Of whichever disk this machine has.
fn io_max(lab: &Lab) -> Result<()> {
    let disks = fs::read_dir("/sys/block").context("list disks")?;
    let disk = disks.flatten().next().context("this machine has no disk at all, not even a loop device")?;
    let number = fs::read_to_string(disk.path().join("dev"))?.trim().to_owned();
    let (major, minor) = number.split_once(':').context("a device number")?;
    let rate =
        |rate: u64| json!([{ "major": major.parse::<u64>().ok(), "minor": minor.parse::<u64>().ok(), "rate": rate }]);
    let limits = json!({
        "throttleReadBpsDevice": rate(1 << 20), "throttleWriteBpsDevice": rate(2 << 20),
        "throttleReadIOPSDevice": rate(300), "throttleWriteIOPSDevice": rate(400),
    });
    let wanted = format!("{number} rbps=1048576 wbps=2097152 riops=300 wiops=400");
    files(lab, json!({ "blockIO": limits }), &[("io.max", &wanted)])
}

/// Lines of `events`.
fn told(output: &str) -> Result<Vec<Value>> {
    output
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("a line isn't JSON: {line}")))
        .collect()
}

fn events_stats(lab: &Lab) -> Result<()> {
    let limits = json!({ "pids": { "limit": 77 }, "memory": { "limit": 1 << 28 } });
    let (container, _) = lab.hold(&resources(lab, limits), json!([]))?;
    let lines = told(&lab.call_ok(&["events", "--stats", &container.id])?.stdout)?;
    same!(lines.len(), 1, "lines");
    let (event, data) = (&lines[0], &lines[0]["data"]);
    same!(event["type"], "stats", "type");
    same!(event["id"], container.id, "id");
    same!(data["pids"], json!({ "current": 1, "limit": 77 }), "pids");
    same!(data["memory"]["usage"]["limit"], 1 << 28, "memory.usage.limit");
    for used in ["/memory/usage/usage", "/cpu/usage/total"] {
        ensure!(data.pointer(used).and_then(Value::as_u64).is_some_and(|n| n > 0), "{used} is 0 or absent: {data}");
    }
    container.finish()
}

fn events(lab: &Lab) -> Result<()> {
    let spec = resources(lab, json!({ "pids": { "limit": 77 } }));
    // Nothing is polled, for two seconds.
    let container = lab.start(&spec, json!([["call", libc::SYS_poll, 0, 0, 2000]]))?;
    let lines = told(&lab.call_ok(&["events", "--interval", "1s", &container.id])?.stdout)?;
    ensure!(!lines.is_empty() && lines.iter().all(|line| line["type"] == "stats"), "lines: {lines:?}");
    container.wait_status("stopped")?;
    lab.call_refused(&["events", "--stats", &container.id])?;
    container.wait()?;
    container.delete()
}

fn version_1(lab: &Lab) -> Result<()> {
    for (name, value) in [("disableOOMKiller", json!(true)), ("swappiness", json!(10))] {
        lab.refused(&resources(lab, json!({ "memory": { name: value } }))).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn unified(lab: &Lab) -> Result<()> {
    let value = json!({ "unified": { "memory.high": "50331648", "pids.max": "33", "cpu.weight": "200" } });
    files(lab, value, &[("memory.high", "50331648"), ("pids.max", "33"), ("cpu.weight", "200")])
}

fn unified_overrides(lab: &Lab) -> Result<()> {
    files(lab, json!({ "pids": { "limit": 77 }, "unified": { "pids.max": "44" } }), &[("pids.max", "44")])
}

fn unified_unknown(lab: &Lab) -> Result<()> {
    lab.refused(&resources(lab, json!({ "unified": { "memory.no-such-file": "1" } }))).map(drop)
}

fn unified_path(lab: &Lab) -> Result<()> {
    let parent = "/sys/fs/cgroup/keel-conformance/pids.max";
    lab.refused(&resources(lab, json!({ "unified": { "../pids.max": "55" } })))?;
    ensure!(fs::read_to_string(parent).map_or(true, |text| text.trim() != "55"), "the parent's limit was changed");
    Ok(())
}

fn impossible(lab: &Lab) -> Result<()> {
    lab.refused(&resources(lab, json!({ "cpu": { "cpus": "999" } }))).map(drop)
}

fn namespace(lab: &Lab) -> Result<()> {
    same!(lab.see(&lab.spec().new_namespace("cgroup"))?["cgroup"], "0::/\n", "/proc/self/cgroup inside");
    Ok(())
}

fn failed_create(lab: &Lab) -> Result<()> {
    for spec in [
        lab.spec().mount("/work", "bind", "/no/such/source", &["bind"]),
        lab.spec().join_namespace("network", "/no/such/namespace"),
        lab.spec().set("/hooks/createRuntime", json!([{ "path": "/no/such/hook" }])),
        lab.spec().set("/linux/sysctl", json!({ "net.ipv4.no_such_parameter": "1" })),
    ] {
        lab.refused(&spec)?;
        ensure!(file(lab, "cgroup.procs").is_err(), "the cgroup is still there");
    }
    Ok(())
}

/// A held container with a limit of 77 processes; then `change`; then what its files hold.
fn updated(lab: &Lab, change: impl Fn(&str) -> Result<()>, wanted: &[(&str, &str)]) -> Result<()> {
    let (container, _) = lab.hold(&resources(lab, json!({ "pids": { "limit": 77 } })), json!([]))?;
    change(&container.id)?;
    for (name, content) in wanted {
        same!(file(lab, name)?, *content, "{name} after `update`");
    }
    container.finish()
}

const LIMITS: &str =
    "{\"pids\":{\"limit\":20},\"memory\":{\"limit\":67108864},\"cpu\":{\"quota\":20000,\"period\":50000}}";
const LIMIT_FILES: [(&str, &str); 3] = [("pids.max", "20"), ("memory.max", "67108864"), ("cpu.max", "20000 50000")];

fn update_input(lab: &Lab) -> Result<()> {
    fs::write(lab.path("limits"), LIMITS)?;
    let change = |id: &str| {
        let mut command = lab.command(&["update", "--resources", "-", id]);
        let output = lab.run_command(command.stdin(fs::File::open(lab.path("limits"))?))?;
        same!(output.code, 0, "exit code of `update` ({})", output.stderr.trim());
        Ok(())
    };
    updated(lab, change, &LIMIT_FILES)
}

fn update_file(lab: &Lab) -> Result<()> {
    fs::write(lab.path("limits"), LIMITS)?;
    updated(lab, |id| lab.call_ok(&["update", "--resources", &lab.path("limits"), id]).map(drop), &LIMIT_FILES)
}

fn update_options(lab: &Lab) -> Result<()> {
    let change = |id: &str| {
        lab.call_ok(&[
            "update",
            "--pids-limit",
            "20",
            "--memory",
            "67108864",
            "--cpu-quota",
            "20000",
            "--cpu-period",
            "50000",
            id,
        ])?;
        Ok(())
    };
    updated(lab, change, &LIMIT_FILES)
}

fn update_checked(lab: &Lab) -> Result<()> {
    fs::write(lab.path("limits"), json!({ "memory": { "limit": 4096, "checkBeforeUpdate": true } }).to_string())?;
    let change = |id: &str| lab.call_refused(&["update", "--resources", &lab.path("limits"), id]).map(drop);
    updated(lab, change, &[("memory.max", "max")])
}

fn update_unknown(lab: &Lab) -> Result<()> {
    lab.call_refused(&["update", "--pids-limit", "20", "no-such-container"]).map(drop)
}
