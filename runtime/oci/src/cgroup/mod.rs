//! cgroup v2 folders and their processes (Documentation/admin-guide/cgroup-v2.rst).
//!
//! - `controllers`: controllers for a container's folder
//! - `limits`: what is written for the limits that are asked for

mod controllers;
mod limits;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid};

use crate::error::Step;
use crate::spec::Resources;
use crate::{Error, device_filter, sys};
use limits::{Absent, Limit};

pub(crate) use limits::USUAL_SHARES;

/// How long a cgroup may take to become empty or frozen.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often a folder is made whose parent goes.
const MAX_TRIES: usize = 8;
/// Deepest cgroup below a container's own.
const MAX_DEPTH: usize = 32;
/// What a user inside gets where the kernel doesn't tell: the folder's own files (Delegation, same document).
const DELEGATED: [&str; 3] = ["cgroup.procs", "cgroup.threads", "cgroup.subtree_control"];
/// The kernel's own list of them.
const DELEGATE: &str = "/sys/kernel/cgroup/delegate";

/// Makes the folder, gives it the controllers, writes its limits and attaches its device filter.
pub fn create(path: &Path, resources: &Resources) -> Result<(), Error> {
    let limits = limits::plan(resources)?;
    let filter = device_filter::compile(&resources.devices)?;
    make(path, resources)?;
    write_all(path, &limits)?;
    if let Some(program) = filter {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let step = || format!("attach the device filter to {}", path.display());
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).host(step)?;
        sys::attach_device_filter(fd.as_fd(), &program).host(step)?;
    }
    Ok(())
}

/// Makes the folder and those above it, with the controllers that limits may be asked of; nothing is written into it.
/// One that is there is fine.
pub fn make(path: &Path, resources: &Resources) -> Result<(), Error> {
    make_folders(path, resources).host(|| format!("make cgroup {}", path.display()))
}

/// Another container's end may take the folder above away in between.
fn make_folders(path: &Path, resources: &Resources) -> io::Result<()> {
    let mut made = Ok(());
    for _ in 0..MAX_TRIES {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
            controllers::enable(parent, resources);
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

/// Writes limits into an existing folder. Device rules aren't touched. With `checkBeforeUpdate`, none is written if less
/// memory is asked for than is in use.
pub fn update(path: &Path, resources: &Resources) -> Result<(), Error> {
    let limits = limits::plan(resources)?;
    if let Some(memory) = resources.memory.as_ref().filter(|m| m.check_before_update == Some(true)) {
        // As with runc, nothing is known against a limit where the use can't be read.
        let used = std::fs::read_to_string(path.join("memory.current")).ok().and_then(|t| t.trim().parse().ok());
        limits::check_use(memory, used.unwrap_or(0))?;
    }
    if let Some(parent) = path.parent() {
        controllers::enable(parent, resources);
    }
    write_all(path, &limits)
}

/// Lets a user inside make and fill cgroups below: the folder, and those of its files that the kernel lists for that
/// (runtime-spec, config-linux.md, "cgroup ownership").
pub(crate) fn delegate(path: &Path, uid: u32, gid: u32) -> Result<(), Error> {
    let listed = std::fs::read_to_string(DELEGATE).ok();
    for name in delegated(listed.as_deref()) {
        let path = path.join(name);
        match rustix::fs::chownat(CWD, &path, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::empty()) {
            // Of a controller that isn't enabled here.
            Err(rustix::io::Errno::NOENT) if !name.is_empty() && !DELEGATED.contains(&name) => {}
            other => other.host(|| format!("give {} to user {uid}", path.display()))?,
        }
    }
    Ok(())
}

/// The folder itself, and the names of its files that are handed over with it.
fn delegated(listed: Option<&str>) -> Vec<&str> {
    let names: Vec<&str> = listed.unwrap_or_default().lines().filter(|n| !n.is_empty() && !n.contains('/')).collect();
    let names = if names.is_empty() { DELEGATED.to_vec() } else { names };
    std::iter::once("").chain(names).collect()
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

fn write_all(path: &Path, limits: &[Limit]) -> Result<(), Error> {
    for limit in limits {
        let written = write(path, &limit.file, &limit.value);
        match (&limit.absent, written) {
            (absent, Err(e)) if e.kind() == io::ErrorKind::NotFound && *absent != Absent::Fails => {
                if let Absent::Instead { file, value } = absent {
                    write(path, file, value).host(|| format!("write {value:?} to {}", path.join(file).display()))?;
                }
            }
            (_, other) => {
                other.host(|| format!("write {:?} to {}", limit.value, path.join(&limit.file).display()))?;
            }
        }
    }
    Ok(())
}

/// One write to a file that is there.
fn write(folder: &Path, file: &str, value: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(folder.join(file))?;
    io::Write::write_all(&mut file, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{BlockIo, HugepageLimit, Memory, WeightDevice};

    /// A folder that has these files and no others.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    fn text(dir: &tempfile::TempDir, name: &str) -> String {
        std::fs::read_to_string(dir.path().join(name)).unwrap()
    }

    #[test]
    fn weights_go_to_the_scheduler_that_the_kernel_has() {
        let weights = [WeightDevice { major: 8, minor: 16, weight: Some(505) }];
        let whole = BlockIo { weight: Some(750), ..BlockIo::default() };
        let single = BlockIo { weight_device: weights.into(), ..BlockIo::default() };
        let resources = |block_io: &BlockIo| Resources { block_io: Some(block_io.clone()), ..Resources::default() };
        let both = folder(&[("io.bfq.weight", ""), ("io.weight", "")]);
        update(both.path(), &resources(&whole)).unwrap();
        assert_eq!((text(&both, "io.bfq.weight").as_str(), text(&both, "io.weight").as_str()), ("750", ""));
        let both = folder(&[("io.bfq.weight", ""), ("io.weight", "")]);
        update(both.path(), &resources(&single)).unwrap();
        assert_eq!((text(&both, "io.bfq.weight").as_str(), text(&both, "io.weight").as_str()), ("8:16 505", ""));
        let cost = folder(&[("io.weight", "")]);
        update(cost.path(), &resources(&whole)).unwrap();
        assert_eq!(text(&cost, "io.weight"), "7475");
        let cost = folder(&[("io.weight", "")]);
        update(cost.path(), &resources(&single)).unwrap();
        assert_eq!(text(&cost, "io.weight"), "8:16 5000");
        for wanted in [&whole, &single] {
            let error = update(folder(&[]).path(), &resources(wanted)).unwrap_err().to_string();
            assert!(error.contains("io.weight"), "{error}");
        }
    }

    #[test]
    fn huge_pages_are_limited_when_they_are_reserved_too_where_the_kernel_can() {
        let limit = HugepageLimit { page_size: "2MB".into(), limit: 4 << 20 };
        let resources = Resources { hugepage_limits: vec![limit], ..Resources::default() };
        let new = folder(&[("hugetlb.2MB.max", ""), ("hugetlb.2MB.rsvd.max", "")]);
        update(new.path(), &resources).unwrap();
        assert_eq!(text(&new, "hugetlb.2MB.max"), "4194304");
        assert_eq!(text(&new, "hugetlb.2MB.rsvd.max"), "4194304");
        let old = folder(&[("hugetlb.2MB.max", "")]);
        update(old.path(), &resources).unwrap();
        assert_eq!(text(&old, "hugetlb.2MB.max"), "4194304");
        update(folder(&[]).path(), &resources).unwrap_err();
    }

    #[test]
    fn less_memory_than_is_used_is_refused_where_that_is_to_be_checked() {
        let change = |limit: i64, check| {
            let memory = Memory { limit: Some(limit), check_before_update: Some(check), ..Memory::default() };
            Resources { memory: Some(memory), ..Resources::default() }
        };
        let dir = folder(&[("memory.current", "5000\n"), ("memory.max", "max")]);
        let error = update(dir.path(), &change(5000, true)).unwrap_err().to_string();
        assert!(error.contains("5000 bytes are in use"), "{error}");
        assert_eq!(text(&dir, "memory.max"), "max");
        update(dir.path(), &change(6000, true)).unwrap();
        update(dir.path(), &change(4000, false)).unwrap();
        assert_eq!(text(&dir, "memory.max"), "4000");
    }

    #[test]
    fn what_is_handed_over_is_the_kernels_list() {
        assert_eq!(delegated(Some("cgroup.procs\nmemory.reclaim\n../x\n")), ["", "cgroup.procs", "memory.reclaim"]);
        for none in [None, Some(""), Some("\n")] {
            assert_eq!(delegated(none), ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"]);
        }
    }

    #[test]
    fn files_that_the_kernel_lists_and_this_folder_lacks_are_passed_over() {
        use std::os::unix::fs::MetadataExt as _;
        let listed = std::fs::read_to_string(DELEGATE).expect("these tests need a kernel with cgroups");
        assert!(listed.lines().any(|name| name == "memory.oom.group"), "{listed}");
        let dir = folder(&DELEGATED.map(|name| (name, "")));
        delegate(dir.path(), 100_000, 100_001).unwrap();
        std::fs::write(dir.path().join("memory.oom.group"), "").unwrap();
        std::fs::write(dir.path().join("memory.max"), "").unwrap();
        delegate(dir.path(), 100_000, 100_001).unwrap();
        let owner = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().uid();
        assert_eq!((owner(""), owner("cgroup.procs"), owner("memory.oom.group")), (100_000, 100_000, 100_000));
        assert_eq!(owner("memory.max"), 0);
        std::fs::remove_file(dir.path().join("cgroup.procs")).unwrap();
        delegate(dir.path(), 100_000, 100_001).unwrap_err();
    }
}
