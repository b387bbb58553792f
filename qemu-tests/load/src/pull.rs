//! A pull: what it takes of time, memory and disk.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::client::Client;
use crate::clock::{Stretch, TICK_S, field_kib};
use crate::work::Order;

/// Bytes of a sector in `/proc/diskstats`, whatever the disk's own (kernel: Documentation/admin-guide/iostats.rst).
const SECTOR_BYTES: u64 = 512;

/// Pulls an image; the engine's processes are those of the name `order.process`.
pub fn pull(client: &Client, order: &Order) -> Result<Value> {
    let engine = Engine::find(&order.process)?;
    rustix::fs::sync();
    engine.forget_peak()?;
    let (before, cpu_before) = (Disk::read()?, engine.cpu_s()?);
    let whole = Stretch::begin()?;
    let (name, tag) = order.image.rsplit_once(':').context("an image is given as NAME:TAG")?;
    let told = client.call("POST", &format!("/v1.40/images/create?fromImage={name}&tag={tag}"), None)?;
    let length = whole.end()?;
    check(&told)?;
    let (peak_kib, cpu_s) = (engine.peak_kib()?, engine.cpu_s()? - cpu_before);
    // What is still in memory only belongs to the pull as well.
    rustix::fs::sync();
    let settled = whole.end()?;
    let after = Disk::read()?;
    Ok(json!({
        "wallMs": length.wall_ms, "busyMs": length.busy_ms, "settledBusyMs": settled.busy_ms, "cpuS": cpu_s,
        "peakKib": peak_kib, "writtenKib": (after.sectors - before.sectors) * SECTOR_BYTES / 1024,
        "writes": after.writes - before.writes, "flushes": after.flushes - before.flushes,
    }))
}

/// Removes an image, if it is there.
pub fn forget(client: &Client, order: &Order) -> Result<Value> {
    let images = client.json("GET", "/v1.40/images/json", None)?;
    let names = images.as_array().into_iter().flatten().flat_map(|image| image["RepoTags"].as_array());
    let is_there = names.flatten().any(|name| name.as_str() == Some(&order.image));
    if is_there {
        client.call("DELETE", &format!("/v1.40/images/{}?force=true", order.image), None)?;
    }
    Ok(json!({ "removed": is_there }))
}

/// An engine answers a pull with 200 before it has begun, and tells of failures in the stream.
fn check(told: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(told);
    let last = text.lines().last().context("the engine said nothing of the pull")?;
    if let Some(line) = text.lines().find(|line| line.contains("\"error\"")) {
        bail!("the pull failed: {line}");
    }
    serde_json::from_str::<Value>(last).with_context(|| format!("the pull ended with {last:?}"))?;
    Ok(())
}

/// The processes of an engine.
pub struct Engine(Vec<PathBuf>);

impl Engine {
    /// Those of this name.
    pub fn find(name: &str) -> Result<Self> {
        let folders = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
        let found: Vec<_> = folders
            .filter(|folder| fs::read_to_string(folder.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
            .collect();
        ensure!(!found.is_empty(), "no process is called {name:?}");
        Ok(Self(found))
    }

    /// The process ID, if there is one process alone.
    pub fn pid(&self) -> Result<i32> {
        let [only] = self.0.as_slice() else { bail!("{} processes have that name", self.0.len()) };
        let name = only.file_name().and_then(|name| name.to_str()).context("a process's folder")?;
        Ok(name.parse()?)
    }

    /// Begins the peak of resident memory anew (proc(5), `clear_refs`).
    fn forget_peak(&self) -> Result<()> {
        for folder in &self.0 {
            let path = folder.join("clear_refs");
            fs::write(&path, "5").with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    fn peak_kib(&self) -> Result<f64> {
        self.0.iter().map(|folder| field_kib(&folder.join("status").to_string_lossy(), "VmHWM:")).sum()
    }

    /// Seconds of processor time, with those of children that have ended.
    fn cpu_s(&self) -> Result<f64> {
        let mut ticks = 0;
        for folder in &self.0 {
            let text = fs::read_to_string(folder.join("stat"))?;
            // Fields 14 to 17, counted from behind the name, which may hold blanks (proc(5)).
            let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().skip(11).take(4);
            ticks += fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>();
        }
        Ok(ticks as f64 * TICK_S)
    }
}

/// What all disks have done so far.
#[derive(Default)]
struct Disk {
    writes: u64,
    sectors: u64,
    flushes: u64,
}

impl Disk {
    fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/diskstats")?;
        let mut all = Self::default();
        for line in text.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let number = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
            // Whole virtio disks; partitions end in a digit.
            if fields.get(2).is_some_and(|name| name.starts_with("vd") && !name.ends_with(|c: char| c.is_ascii_digit()))
            {
                all.writes += number(7);
                all.sectors += number(9);
                all.flushes += number(18);
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_in_the_stream_is_one() {
        assert!(check(b"{\"status\":\"Pulling\"}\r\n{\"status\":\"Status: done\"}\r\n").is_ok());
        assert!(check(b"{\"status\":\"Pulling\"}\r\n{\"error\":\"no such image\"}\r\n").is_err());
        assert!(check(b"").is_err());
    }
}
