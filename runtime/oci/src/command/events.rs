//! `events`: what a container uses, and that it ran out of memory, as lines of JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use serde_json::{Value, json};

use super::Result;
use super::args::Args;
use super::record::{self, Status};
use super::report::{Doing, Failure};
use super::show::print;

/// Seconds between two lines unless `--interval` says.
const DEFAULT_INTERVAL_S: u64 = 5;

/// `events`: once with `--stats`, else until the container ends.
pub(super) fn events(args: &Args) -> Result<u8> {
    args.at_most(1)?;
    let container = record::open(args, false)?;
    let id = container.record.id.clone();
    let interval = interval(args)?;
    if container.status()? == Status::Stopped {
        return Err(Failure::new(format!("cannot tell events of container {id}: it isn't running")));
    }
    let cgroup = container.record.cgroup.as_ref();
    let cgroup =
        cgroup.ok_or_else(|| Failure::new(format!("container {id} has no cgroup that would tell what it uses")))?;
    let tell = || event("stats", &id, Some(stats(cgroup)));
    if args.has("stats") {
        tell()?;
        return Ok(0);
    }
    let mut killed = out_of_memory(cgroup);
    while let Some(pidfd) = container.process()? {
        tell()?;
        let timeout = Timespec { tv_sec: interval.as_secs() as i64, tv_nsec: interval.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).doing(|| "wait".into()),
        }
        let now = out_of_memory(cgroup);
        if now > killed {
            event("oom", &id, None)?;
        }
        killed = now.max(killed);
    }
    Ok(0)
}

/// A line. What others made of one by searching relies on this order.
fn event(kind: &str, id: &str, data: Option<Value>) -> Result<()> {
    let data = data.map(|data| format!(r#","data":{data}"#)).unwrap_or_default();
    print(&format!(r#"{{"type":{},"id":{}{data}}}"#, json!(kind), json!(id)))
}

/// A number of seconds, or one with `s` or `ms` behind it.
fn interval(args: &Args) -> Result<Duration> {
    let Some(text) = args.text("interval")? else { return Ok(Duration::from_secs(DEFAULT_INTERVAL_S)) };
    let (digits, unit) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => (digits, 1),
        (None, digits) => (digits.unwrap_or(text), 1000),
    };
    let millis = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit)).filter(|n| *n > 0);
    millis.map(Duration::from_millis).ok_or_else(|| Failure::new(format!("--interval {text:?} isn't a time")))
}

fn out_of_memory(cgroup: &Path) -> u64 {
    flat(cgroup, "memory.events").get("oom_kill").copied().unwrap_or(0)
}

/// Files of `key value` lines. A controller that isn't there has none.
fn flat(cgroup: &Path, name: &str) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(cgroup.join(name)).unwrap_or_default();
    let pairs = text.lines().filter_map(|l| l.split_once(' '));
    pairs.filter_map(|(k, v)| Some((k.to_owned(), v.parse().ok()?))).collect()
}

/// Files of one number; `max` is the largest one, as others have it.
fn single(cgroup: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(cgroup.join(name)).ok()?;
    if text.trim() == "max" { Some(u64::MAX) } else { text.trim().parse().ok() }
}

fn stats(cgroup: &Path) -> Value {
    let cpu = flat(cgroup, "cpu.stat");
    let micros = |name: &str| cpu.get(name).copied().unwrap_or(0).saturating_mul(1000);
    let count = |name: &str| cpu.get(name).copied().unwrap_or(0);
    let raw = flat(cgroup, "memory.stat");
    let usage = |what: &str| {
        json!({
            "usage": single(cgroup, &format!("memory{what}.current")).unwrap_or(0),
            "max": single(cgroup, &format!("memory{what}.peak")).unwrap_or(0),
            "limit": single(cgroup, &format!("memory{what}.max")).unwrap_or(0),
            "failcnt": flat(cgroup, &format!("memory{what}.events")).get("max").copied().unwrap_or(0),
        })
    };
    let mut pids = json!({ "current": single(cgroup, "pids.current").unwrap_or(0) });
    if let Some(limit) = single(cgroup, "pids.max").filter(|l| *l != u64::MAX) {
        pids["limit"] = limit.into();
    }
    let mut stats = json!({
        "cpu": {
            "usage": { "total": micros("usage_usec"), "kernel": micros("system_usec"), "user": micros("user_usec") },
            "throttling": {
                "periods": count("nr_periods"),
                "throttledPeriods": count("nr_throttled"),
                "throttledTime": micros("throttled_usec"),
            },
        },
        "cpuset": {},
        "memory": {
            "cache": raw.get("file").copied().unwrap_or(0),
            "usage": usage(""),
            "swap": usage(".swap"),
            "kernel": {},
            "kernelTCP": {},
            "raw": raw,
        },
        "pids": pids,
        "blkio": { "ioServiceBytesRecursive": io(cgroup, [("rbytes", "Read"), ("wbytes", "Write")]),
                   "ioServicedRecursive": io(cgroup, [("rios", "Read"), ("wios", "Write")]) },
        "hugetlb": huge_pages(cgroup),
        "intel_rdt": {},
        "network_interfaces": null,
    });
    for (field, file) in [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("blkio", "io.pressure")] {
        if let Some(pressure) = pressure(cgroup, file) {
            stats[field]["psi"] = pressure;
        }
    }
    stats
}

/// How long tasks waited (Documentation/accounting/psi.rst): lines such as `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`.
fn pressure(cgroup: &Path, name: &str) -> Option<Value> {
    let text = std::fs::read_to_string(cgroup.join(name)).ok()?;
    let number = |word: &str| {
        let (key, value) = word.split_once('=')?;
        Some((key.to_owned(), serde_json::from_str::<Value>(value).ok().filter(Value::is_number)?))
    };
    let line = |line: &str| {
        let (kind, rest) = line.split_once(' ')?;
        Some((kind.to_owned(), Value::Object(rest.split_ascii_whitespace().filter_map(number).collect())))
    };
    Some(Value::Object(text.lines().filter_map(line).collect()))
}

/// `hugetlb.2MB.current` and its like, by size.
fn huge_pages(cgroup: &Path) -> Value {
    let entries = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let size = |name: String| {
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(".current")?;
        (!size.contains('.')).then(|| size.to_owned())
    };
    let usage = |size: String| {
        let file = |what: &str| format!("hugetlb.{size}.{what}");
        let failed = flat(cgroup, &file("events")).get("max").copied().unwrap_or(0);
        let usage = json!({ "usage": single(cgroup, &file("current")).unwrap_or(0), "failcnt": failed });
        (size, usage)
    };
    Value::Object(names.filter_map(size).map(usage).collect())
}

/// `io.stat`, a line for each device.
fn io(cgroup: &Path, wanted: [(&str, &str); 2]) -> Vec<Value> {
    let text = std::fs::read_to_string(cgroup.join("io.stat")).unwrap_or_default();
    let mut out = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(|d| d.split_once(':')) else { continue };
        let (Ok(major), Ok(minor)) = (major.parse::<u64>(), minor.parse::<u64>()) else { continue };
        for (key, value) in words.filter_map(|w| w.split_once('=')) {
            let op = wanted.iter().find(|(k, _)| *k == key).map(|(_, op)| op);
            if let (Some(op), Ok(value)) = (op, value.parse::<u64>()) {
                out.push(json!({ "major": major, "minor": minor, "op": op, "value": value }));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn stats_are_read_from_the_files_of_version_2() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("cpu.stat", "usage_usec 7\nuser_usec 5\nsystem_usec 2\n"),
            ("memory.current", "4096\n"),
            ("memory.max", "max\n"),
            ("hugetlb.2MB.current", "4194304\n"),
            ("hugetlb.2MB.rsvd.current", "0\n"),
            ("hugetlb.2MB.events", "max 5\n"),
            ("pids.current", "3\n"),
            ("pids.max", "10\n"),
            ("cpu.pressure", "some avg10=0.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 total=3\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let stats = super::stats(dir.path());
        assert_eq!(stats["cpu"]["usage"]["total"], 7000);
        assert_eq!(stats["memory"]["usage"]["limit"], u64::MAX);
        assert_eq!(stats["pids"]["limit"], 10);
        assert_eq!(
            (&stats["cpu"]["psi"]["some"]["avg10"], &stats["cpu"]["psi"]["full"]["total"]),
            (&0.5.into(), &3.into())
        );
        assert_eq!(stats["hugetlb"], serde_json::json!({ "2MB": { "usage": 4_194_304, "failcnt": 5 } }));
        assert!(stats["memory"].get("psi").is_none());
        assert_eq!(stats["blkio"]["ioServiceBytesRecursive"][1]["value"], 2);
    }
}
