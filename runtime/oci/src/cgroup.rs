//! cgroup v2 folders, their limits and processes (Documentation/admin-guide/cgroup-v2.rst).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};

use crate::error::Step;
use crate::plan::refused;
use crate::spec::Resources;
use crate::{Error, device_filter, sys};

/// How long a cgroup may take to become empty or frozen.
const TIMEOUT: Duration = Duration::from_secs(5);
/// `cpu.shares` that everybody has: engines write them down where nothing else is asked for.
pub(crate) const USUAL_SHARES: u64 = 1024;
/// How often a folder is made whose parent goes.
const MAX_TRIES: usize = 8;
/// Deepest cgroup below a container's own.
const MAX_DEPTH: usize = 32;
/// Controllers that a container's folder gets, as far as the kernel has them.
const CONTROLLERS: [&str; 7] = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb", "rdma"];

/// Makes the folder, gives it the controllers, writes its limits and attaches its device filter.
pub fn create(path: &Path, resources: &Resources) -> Result<(), Error> {
    let files = files(resources)?;
    let filter = device_filter::compile(&resources.devices)?;
    make(path).host(|| format!("make cgroup {}", path.display()))?;
    write_all(path, &files)?;
    if let Some(program) = filter {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let step = || format!("attach the device filter to {}", path.display());
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).host(step)?;
        sys::attach_device_filter(fd.as_fd(), &program).host(step)?;
    }
    Ok(())
}

/// Makes the folder and those above it. Another container's end may take the one above away in between.
fn make(path: &Path) -> io::Result<()> {
    let mut made = Ok(());
    for _ in 0..MAX_TRIES {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
            enable_controllers(parent);
        }
        made = std::fs::create_dir(path);
        match &made {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            _ => break,
        }
    }
    made
}

/// Opens a folder for processes to be cloned into.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).host(|| format!("open cgroup {}", path.display()))
}

/// Writes limits into an existing folder. Device rules aren't touched.
pub fn update(path: &Path, resources: &Resources) -> Result<(), Error> {
    write_all(path, &files(resources)?)
}

/// Lets a user inside make and fill cgroups below (Delegation, same document).
pub(crate) fn delegate(path: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
        let path = path.join(name);
        rustix::fs::chownat(CWD, &path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::empty())
            .host(|| format!("give {} to user {uid}", path.display()))?;
    }
    Ok(())
}

/// Kills every process in it and below (`cgroup.kill`). An absent one is fine.
pub fn kill_all(path: &Path) -> Result<(), Error> {
    match std::fs::write(path.join("cgroup.kill"), "1") {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::Host { step: format!("kill the processes of {}", path.display()), source: e })
        }
        _ => Ok(()),
    }
}

/// Removes it and the folders below, once it is empty (waits up to 5 s); absent is fine.
pub fn remove(path: &Path) -> Result<(), Error> {
    if !path.exists() {
        return Ok(());
    }
    let step = || format!("remove cgroup {}", path.display());
    wait_for(path, "populated 0").host(step)?;
    remove_below(path, 0).host(step)
}

fn remove_below(path: &Path, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path(), depth + 1)?;
        }
    }
    std::fs::remove_dir(path)
}

/// Process IDs in it and below.
pub fn pids(path: &Path) -> Result<Vec<u32>, Error> {
    let mut out = Vec::new();
    collect_pids(path, 0, &mut out).host(|| format!("list the processes of {}", path.display()))?;
    Ok(out)
}

fn collect_pids(path: &Path, depth: usize, out: &mut Vec<u32>) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    out.extend(std::fs::read_to_string(path.join("cgroup.procs"))?.lines().filter_map(|l| l.parse::<u32>().ok()));
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            match collect_pids(&entry.path(), depth + 1, out) {
                // Removed from inside in the meantime.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Freezes or thaws it; returns when that is done (5 s at most).
pub fn freeze(path: &Path, frozen: bool) -> Result<(), Error> {
    let word = if frozen { "1" } else { "0" };
    let step = || format!("{} {}", if frozen { "freeze" } else { "thaw" }, path.display());
    std::fs::write(path.join("cgroup.freeze"), word).host(step)?;
    wait_for(path, if frozen { "frozen 1" } else { "frozen 0" }).host(step)
}

/// Whether all its processes are frozen.
pub(crate) fn is_frozen(path: &Path) -> bool {
    std::fs::read_to_string(path.join("cgroup.events")).is_ok_and(|text| text.lines().any(|l| l == "frozen 1"))
}

/// Waits until a line is in `cgroup.events`, which is polled for changes (`POLLPRI`).
fn wait_for(path: &Path, line: &str) -> io::Result<()> {
    let file = std::fs::File::open(path.join("cgroup.events"))?;
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let mut text = [0u8; 256];
        let len = rustix::io::pread(&file, &mut text, 0)?;
        if String::from_utf8_lossy(&text[..len]).lines().any(|l| l == line) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        match rustix::event::poll(&mut [PollFd::new(&file, PollFlags::PRI)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Each by itself: one that the kernel lacks mustn't keep the others off. A limit that needs a missing one fails by
/// name when it is written.
fn enable_controllers(parent: &Path) {
    for name in CONTROLLERS {
        let _ = std::fs::write(parent.join("cgroup.subtree_control"), format!("+{name}"));
    }
}

fn write_all(path: &Path, files: &[(String, String)]) -> Result<(), Error> {
    for (name, value) in files {
        let file = path.join(name);
        let opened = std::fs::OpenOptions::new().write(true).open(&file);
        match opened.and_then(|mut f| io::Write::write_all(&mut f, value.as_bytes())) {
            // No limit, and everybody's share, is what there is where the kernel lacks the controller.
            Err(e) if e.kind() == io::ErrorKind::NotFound && (value == "max" || is_usual_share(name, value)) => {}
            other => other.host(|| format!("write {value:?} to {}", file.display()))?,
        }
    }
    Ok(())
}

/// The files of these limits and their contents, in the order in which they are written.
fn files(r: &Resources) -> Result<Vec<(String, String)>, Error> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: String| out.push((name.into(), value));
    let bytes = |n: i64| if n < 0 { "max".to_owned() } else { n.to_string() };
    if let Some(m) = &r.memory {
        let limit = m.limit.filter(|l| *l != 0);
        if let Some(limit) = limit {
            put("memory.max", bytes(limit));
        }
        if let Some(low) = m.reservation.filter(|l| *l != 0) {
            put("memory.low", bytes(low));
        }
        match (m.swap, limit) {
            (None | Some(0), Some(limit)) if limit < 0 => put("memory.swap.max", "max".into()),
            (None | Some(0), _) => {}
            (Some(-1), _) => put("memory.swap.max", "max".into()),
            (Some(both), Some(limit)) if limit > 0 && both >= limit => {
                put("memory.swap.max", (both - limit).to_string());
            }
            _ => {
                let reason = "is memory and swap together: it can't be less than the limit, or without one";
                return Err(refused("linux.resources.memory.swap", reason.into()));
            }
        }
    }
    if let Some(c) = &r.cpu {
        if let Some(shares) = c.shares.filter(|s| *s != 0) {
            put("cpu.weight", cpu_weight(shares).to_string());
        }
        if c.quota.is_some_and(|q| q != 0) || c.period.is_some_and(|p| p != 0) {
            let period = c.period.filter(|p| *p != 0).unwrap_or(100_000);
            let quota = c.quota.filter(|q| *q > 0).map_or("max".into(), |q| q.to_string());
            put("cpu.max", format!("{quota} {period}"));
        }
        for (name, value) in [("cpuset.cpus", &c.cpus), ("cpuset.mems", &c.mems)] {
            if let Some(value) = value.as_ref().filter(|v| !v.is_empty()) {
                put(name, value.clone());
            }
        }
    }
    if let Some(p) = r.pids.as_ref().filter(|p| p.limit != 0) {
        put("pids.max", bytes(p.limit));
    }
    if let Some(weight) = r.block_io.as_ref().and_then(|b| b.weight).filter(|w| *w != 0) {
        // 10 to 1000 becomes 1 to 10000.
        put("io.weight", (1 + (u32::from(weight.clamp(10, 1000)) - 10) * 9999 / 990).to_string());
    }
    if let Some(c) = &r.cpu {
        if c.realtime_runtime.is_some_and(|n| n != 0) || c.realtime_period.is_some_and(|n| n != 0) {
            return Err(refused("linux.resources.cpu", "cgroup v2 has no real-time limits".into()));
        }
        out.extend(c.burst.map(|n| ("cpu.max.burst".to_owned(), n.to_string())));
        out.extend(c.idle.map(|n| ("cpu.idle".to_owned(), n.to_string())));
    }
    if r.network.as_ref().is_some_and(|n| n != &Default::default()) {
        return Err(refused("linux.resources.network", "cgroup v2 has no network classes".into()));
    }
    for limit in &r.hugepage_limits {
        if limit.page_size.is_empty() || !limit.page_size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(refused("linux.resources.hugepageLimits", format!("{:?} is no size", limit.page_size)));
        }
        out.push((format!("hugetlb.{}.max", limit.page_size), limit.limit.to_string()));
    }
    if let Some(b) = &r.block_io {
        let lists = [
            ("rbps", &b.throttle_read_bps_device),
            ("wbps", &b.throttle_write_bps_device),
            ("riops", &b.throttle_read_iops_device),
            ("wiops", &b.throttle_write_iops_device),
        ];
        for (key, list) in lists {
            for d in list {
                let rate = if d.rate == 0 { "max".to_owned() } else { d.rate.to_string() };
                out.push(("io.max".into(), format!("{}:{} {key}={rate}", d.major, d.minor)));
            }
        }
    }
    for (device, limit) in &r.rdma {
        let number = |n: Option<u32>| n.map_or("max".into(), |n| n.to_string());
        let (handles, objects) = (number(limit.hca_handles), number(limit.hca_objects));
        out.push(("rdma.max".into(), format!("{device} hca_handle={handles} hca_object={objects}")));
    }
    for (name, value) in &r.unified {
        let mut put = |name: &str, value: String| out.push((name.into(), value));
        if name.is_empty() || name.contains(['/', '\0']) || name.starts_with("cgroup.") || !name.contains('.') {
            return Err(refused("linux.resources.unified", format!("{name:?} isn't a limit")));
        }
        put(name, value.clone());
    }
    Ok(out)
}

fn is_usual_share(name: &str, value: &str) -> bool {
    name == "cpu.weight" && value == cpu_weight(USUAL_SHARES).to_string()
}

/// From v1's 2…262144 to v2's 1…10000, linearly, as other runtimes do.
fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Cpu, Memory, Pids};

    #[test]
    fn limits_become_files_of_version_2() {
        let resources = Resources {
            memory: Some(Memory { limit: Some(64 << 20), swap: Some(64 << 20), ..Memory::default() }),
            cpu: Some(Cpu { shares: Some(1024), quota: Some(50_000), ..Cpu::default() }),
            pids: Some(Pids { limit: -1 }),
            unified: [("memory.high".into(), "1M".into())].into(),
            ..Resources::default()
        };
        let expected = [
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("cpu.weight", "39"),
            ("cpu.max", "50000 100000"),
            ("pids.max", "max"),
            ("memory.high", "1M"),
        ];
        assert_eq!(files(&resources).unwrap(), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_no_limit() {
        for name in ["../memory.max", "cgroup.procs", "x"] {
            let resources = Resources { unified: [(name.into(), "1".into())].into(), ..Resources::default() };
            assert!(files(&resources).is_err(), "{name}");
        }
    }

    #[test]
    fn swap_without_a_memory_limit_is_refused() {
        let memory = Some(Memory { swap: Some(1 << 20), ..Memory::default() });
        assert!(files(&Resources { memory, ..Resources::default() }).is_err());
    }
}
