//! What the machine says of time and memory.

use std::fs;
use std::time::Instant;

use anyhow::{Context, Result};

/// A clock tick in seconds: `USER_HZ` of all of Linux's x86.
pub const TICK_S: f64 = 0.01;
/// KiB of a page.
const PAGE_KIB: f64 = 4.0;
/// KiB of the kernel's stack for a thread on x86-64.
const KERNEL_STACK_KIB: f64 = 16.0;

/// A stretch of time. Idle time is that of all processors together, to a hundredth of a second.
pub struct Stretch {
    begun: Instant,
    idle_s: f64,
}

/// How long a stretch was.
pub struct Length {
    /// Milliseconds by the clock.
    pub wall_ms: f64,
    /// Milliseconds during which a processor was busy, where the machine has one.
    pub busy_ms: f64,
}

impl Stretch {
    /// Begins now.
    pub fn begin() -> Result<Self> {
        Ok(Self { idle_s: idle_s()?, begun: Instant::now() })
    }

    /// Ends now.
    pub fn end(&self) -> Result<Length> {
        let wall_ms = self.begun.elapsed().as_secs_f64() * 1000.0;
        Ok(Length { wall_ms, busy_ms: wall_ms - (idle_s()? - self.idle_s) * 1000.0 })
    }
}

/// Waits for a disk are counted apart from other idle time, which is all that `/proc/uptime` knows (proc_stat(5)).
fn idle_s() -> Result<f64> {
    let text = fs::read_to_string("/proc/stat")?;
    let fields = text.lines().next().unwrap_or_default().split_whitespace().skip(4).take(2);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    anyhow::ensure!(ticks.len() == 2, "no idle time in /proc/stat");
    Ok(ticks.iter().sum::<f64>() * TICK_S)
}

/// KiB that could be had without swapping, with nothing in caches. `MemAvailable` leaves out the free pages that each
/// processor keeps at hand, which may be an eighth of all memory (kernel: Documentation/admin-guide/sysctl/vm.rst,
/// `percpu_pagelist_high_fraction`); under pressure they are given back.
pub fn available_kib() -> Result<f64> {
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    let zones = fs::read_to_string("/proc/zoneinfo").context("read /proc/zoneinfo")?;
    let at_hand = zones.lines().filter_map(|line| line.trim().strip_prefix("count:")?.trim().parse::<f64>().ok());
    Ok(field_kib("/proc/meminfo", "MemAvailable:")? + at_hand.sum::<f64>() * PAGE_KIB)
}

/// Number of all processes whose command line is this, and KiB of what each would have without a container, too: its
/// proportional set size, its page tables and its stack in the kernel.
pub fn processes(command: &[&str]) -> Result<(usize, f64)> {
    let wanted: Vec<u8> = command.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    let (mut count, mut kib) = (0, 0.0);
    for entry in fs::read_dir("/proc")?.flatten() {
        if fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted) {
            let of = |file: &str, field| field_kib(&entry.path().join(file).to_string_lossy(), field);
            count += 1;
            kib += of("smaps_rollup", "Pss:")? + of("status", "VmPTE:")? + KERNEL_STACK_KIB;
        }
    }
    Ok((count, kib))
}

/// A field of a file under `/proc`, in KiB.
pub fn field_kib(path: &str, field: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(field)).with_context(|| format!("{field} in {path}"))?;
    Ok(value.trim().trim_end_matches("kB").trim().parse()?)
}
