//! `stats`: one sample of what a container uses, from its cgroup (cgroup-v2.rst) and its network interfaces, in the
//! shape of Docker's API.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::clock;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Error;
use crate::processes::{PAGE_BYTES, TICKS_PER_S};

/// Most lines of a file that are looked at.
const MAX_LINES: usize = 4096;

/// What a container used so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    id: String,
    name: String,
    /// Nanoseconds since the Unix epoch; `None`: it doesn't run.
    read_unix_ns: Option<u64>,
    cpu: BTreeMap<String, u64>,
    system_ns: u64,
    processors: u64,
    memory_bytes: u64,
    memory: BTreeMap<String, u64>,
    limit_bytes: u64,
    pids: u64,
    pids_limit: Option<u64>,
    /// Device, operation, bytes, operations.
    io: Vec<Io>,
    networks: Vec<(String, [u64; 8])>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Io {
    device: (u64, u64),
    read_bytes: u64,
    written_bytes: u64,
    reads: u64,
    writes: u64,
}

impl Engine {
    /// What a container uses now. One that doesn't run uses nothing.
    pub fn sample(&self, wanted: &str) -> Result<Sample, Error> {
        let container = self.find(wanted)?;
        let mut sample =
            Sample { id: container.id.clone(), name: container.config().name.clone(), ..Sample::default() };
        let Some(pid) = container.state().pid.filter(|_| container.state().is_running()) else { return Ok(sample) };
        sample.read_unix_ns = Some(clock::unix_ns());
        sample.system_ns = system_ns(&text(Path::new("/proc/stat")));
        sample.processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        sample.networks = networks(&text(Path::new(&format!("/proc/{pid}/net/dev"))));
        match self.cgroup(&container) {
            Some(cgroup) => sample.read_cgroup(&cgroup),
            None => self.sample_processes(&container, &mut sample)?,
        }
        let total_bytes = total_memory_bytes();
        sample.limit_bytes = match sample.limit_bytes {
            0 => total_bytes,
            limit => limit.min(total_bytes),
        };
        Ok(sample)
    }

    /// Without cgroups: the sum over its processes.
    fn sample_processes(&self, container: &Container, sample: &mut Sample) -> Result<(), Error> {
        let processes = self.processes(container)?;
        let ticks: u64 = processes.iter().map(|process| process.cpu_ticks).sum();
        sample.cpu.insert("usage_usec".into(), ticks.saturating_mul(1_000_000 / TICKS_PER_S));
        sample.memory_bytes = processes.iter().map(|process| process.resident_pages * PAGE_BYTES).sum();
        sample.pids = processes.len() as u64;
        Ok(())
    }
}

impl Sample {
    fn read_cgroup(&mut self, cgroup: &Path) {
        let number = |name: &str| text(&cgroup.join(name)).trim().parse::<u64>().ok();
        self.cpu = pairs(&text(&cgroup.join("cpu.stat")));
        self.memory = pairs(&text(&cgroup.join("memory.stat")));
        self.memory_bytes = number("memory.current").unwrap_or(0);
        // `max` is no number: no limit.
        self.limit_bytes = number("memory.max").unwrap_or(0);
        self.pids = number("pids.current").unwrap_or(0);
        self.pids_limit = number("pids.max");
        self.io = io(&text(&cgroup.join("io.stat")));
    }

    /// In the shape of Docker's API, with the sample before it, if there was one.
    pub fn to_json(&self, before: Option<&Self>) -> Value {
        let read = |sample: Option<&Self>| {
            sample.and_then(|sample| sample.read_unix_ns).map_or_else(|| clock::NEVER.into(), clock::rfc3339)
        };
        let networks: serde_json::Map<String, Value> =
            self.networks.iter().map(|(name, n)| (name.clone(), interface(n))).collect();
        let mut value = json!({
            "id": self.id, "name": format!("/{}", self.name), "os_type": "linux",
            "read": read(Some(self)), "preread": read(before), "num_procs": 0, "storage_stats": {},
            "cpu_stats": self.cpu_json(), "precpu_stats": before.map_or_else(|| Self::default().cpu_json(), Self::cpu_json),
            "memory_stats": {}, "pids_stats": {}, "blkio_stats": self.io_json(),
        });
        if self.read_unix_ns.is_some() {
            value["memory_stats"] =
                json!({ "usage": self.memory_bytes, "limit": self.limit_bytes, "stats": self.memory });
            value["pids_stats"] = json!({ "current": self.pids });
            // Docker's number for "no limit".
            value["pids_stats"]["limit"] = self.pids_limit.unwrap_or(u64::MAX).into();
            value["networks"] = Value::Object(networks);
        }
        value
    }

    fn cpu_json(&self) -> Value {
        let of = |name: &str| self.cpu.get(name).copied().unwrap_or(0);
        let ns = |name: &str| of(name).saturating_mul(1000);
        let mut value = json!({
            "cpu_usage": {
                "total_usage": ns("usage_usec"), "usage_in_kernelmode": ns("system_usec"),
                "usage_in_usermode": ns("user_usec"),
            },
            "throttling_data": {
                "periods": of("nr_periods"), "throttled_periods": of("nr_throttled"),
                "throttled_time": ns("throttled_usec"),
            },
        });
        if self.read_unix_ns.is_some() {
            value["system_cpu_usage"] = self.system_ns.into();
            value["online_cpus"] = self.processors.into();
        }
        value
    }

    fn io_json(&self) -> Value {
        let rows = |of: &dyn Fn(&Io) -> [(&'static str, u64); 2]| -> Value {
            let row = |io: &Io, (op, value): (&str, u64)| json!({ "major": io.device.0, "minor": io.device.1, "op": op, "value": value });
            self.io.iter().flat_map(|io| of(io).map(|pair| row(io, pair))).collect()
        };
        json!({
            "io_service_bytes_recursive": rows(&|io| [("read", io.read_bytes), ("write", io.written_bytes)]),
            "io_serviced_recursive": rows(&|io| [("read", io.reads), ("write", io.writes)]),
            "io_queue_recursive": null, "io_service_time_recursive": null, "io_wait_time_recursive": null,
            "io_merged_recursive": null, "io_time_recursive": null, "sectors_recursive": null,
        })
    }
}

fn interface(counts: &[u64; 8]) -> Value {
    let [rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped] = counts;
    json!({
        "rx_bytes": rx_bytes, "rx_packets": rx_packets, "rx_errors": rx_errors, "rx_dropped": rx_dropped,
        "tx_bytes": tx_bytes, "tx_packets": tx_packets, "tx_errors": tx_errors, "tx_dropped": tx_dropped,
    })
}

/// A file of the kernel's; one that isn't there has nothing to tell.
fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Lines of a name and a number.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().take(MAX_LINES).filter_map(pair).collect()
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 …`
fn io(text: &str) -> Vec<Io> {
    let line = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (major, minor) = words.next()?.split_once(':')?;
        let mut io = Io {
            device: (major.parse().ok()?, minor.parse().ok()?),
            read_bytes: 0,
            written_bytes: 0,
            reads: 0,
            writes: 0,
        };
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            let value = value.parse().ok()?;
            match name {
                "rbytes" => io.read_bytes = value,
                "wbytes" => io.written_bytes = value,
                "rios" => io.reads = value,
                "wios" => io.writes = value,
                _ => {}
            }
        }
        Some(io)
    };
    text.lines().take(MAX_LINES).filter_map(line).collect()
}

/// `/proc/PID/net/dev`: two lines of titles, then an interface a line. The loopback isn't told, as with Docker.
fn networks(text: &str) -> Vec<(String, [u64; 8])> {
    let line = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect();
        let at = |index: usize| numbers.get(index).copied();
        let counts = [at(0)?, at(1)?, at(2)?, at(3)?, at(8)?, at(9)?, at(10)?, at(11)?];
        Some((name.trim().to_owned(), counts)).filter(|(name, _)| name != "lo")
    };
    text.lines().skip(2).take(MAX_LINES).filter_map(line).collect()
}

/// All time of all processors, idle included (proc_stat(5)), nanoseconds.
fn system_ns(stat: &str) -> u64 {
    let first = stat.lines().next().unwrap_or_default();
    // Guests' time is in the user's already: the first seven count.
    let ticks: u64 = first.split_ascii_whitespace().skip(1).take(7).filter_map(|n| n.parse::<u64>().ok()).sum();
    ticks.saturating_mul(1_000_000_000 / TICKS_PER_S)
}

/// The machine's memory.
pub fn total_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    // The widths of both fields differ between architectures.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_version_2_become_dockers_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            ("cpu.stat", "usage_usec 5\nuser_usec 3\nsystem_usec 2\nnr_throttled 4\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 600\ninactive_file 300\n"),
            ("pids.current", "2\n"),
            ("pids.max", "100\n"),
            ("io.stat", "8:16 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n"),
        ];
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let mut sample = Sample { read_unix_ns: Some(1), limit_bytes: 9, processors: 2, ..Sample::default() };
        sample.read_cgroup(folder.path());
        let value = sample.to_json(Some(&sample.clone()));
        assert_eq!(value["cpu_stats"]["cpu_usage"]["total_usage"], 5000);
        assert_eq!(value["precpu_stats"]["cpu_usage"]["usage_in_kernelmode"], 2000);
        assert_eq!(value["memory_stats"]["stats"]["inactive_file"], 300);
        assert_eq!(value["pids_stats"], json!({ "current": 2, "limit": 100 }));
        let io = &value["blkio_stats"]["io_service_bytes_recursive"];
        assert_eq!(io[1], json!({ "major": 8, "minor": 16, "op": "write", "value": 20 }));
    }

    #[test]
    fn interfaces_are_read_but_for_the_loopback() {
        let text = "Inter-| x\n face | y\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 0 1 0 0 0 0 30 4 0 5 0 0 0 0\n";
        assert_eq!(networks(text), [("eth0".into(), [10, 2, 0, 1, 30, 4, 0, 5])]);
        assert_eq!(networks("a\nb\nc: 1"), []);
    }

    #[test]
    fn one_that_does_not_run_uses_nothing() {
        let value = Sample::default().to_json(None);
        assert_eq!((&value["read"], &value["memory_stats"]), (&json!(clock::NEVER), &json!({})));
    }
}
