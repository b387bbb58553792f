//! A container's processes, as the host's `/proc` shows them (proc_pid_stat(5)).

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Doing, Error};

/// Most processes that are told of.
const MAX_PROCESSES: usize = 32_768;
/// Longest command line that is told, bytes.
const MAX_ARGS_BYTES: usize = 4096;
/// Ticks in a second of the times in `/proc` (`USER_HZ`, the same on all architectures that Keel runs on).
pub const TICKS_PER_S: u64 = 100;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;

/// One process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Its ID on the host.
    pub pid: u32,
    /// Its parent's.
    pub ppid: u32,
    /// User on the host.
    pub uid: u32,
    /// One letter: `R`, `S`, `D` ….
    pub state: char,
    /// Short name.
    pub comm: String,
    /// Words, joined by spaces; empty for one that has none.
    pub args: String,
    /// Controlling terminal's device number; 0: none.
    pub tty: i64,
    /// Processor time, ticks.
    pub cpu_ticks: u64,
    /// Start, ticks since boot.
    pub start_ticks: u64,
    /// Address space, bytes.
    pub virtual_bytes: u64,
    /// Resident, pages.
    pub resident_pages: u64,
    /// Niceness.
    pub nice: i64,
    /// Threads.
    pub threads: u64,
}

impl Engine {
    /// The processes of a container that runs, in the order of their IDs.
    pub(crate) fn processes(&self, container: &Container) -> Result<Vec<ProcessInfo>, Error> {
        let Some(first) = container.state().pid.filter(|_| container.state().is_running()) else {
            return Err(Error::Conflict(format!("container {} is not running", container.id)));
        };
        let mut ids = match self.cgroup(container) {
            Some(cgroup) => keel_oci::cgroup::pids(&cgroup)
                .doing(|| format!("listing the processes of container {}", container.id))?,
            None => below(first),
        };
        ids.sort_unstable();
        ids.truncate(MAX_PROCESSES);
        // One that ends meanwhile is no longer one.
        Ok(ids.into_iter().filter_map(read).collect())
    }
}

/// A process and its descendants, for engines without cgroups.
fn below(first: u32) -> Vec<u32> {
    let listed = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = listed.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let pairs: Vec<(u32, u32)> = ids.filter_map(|id| Some((id, read_stat(id)?.ppid))).collect();
    let mut found = vec![first];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(pairs.iter().filter(|(_, ppid)| *ppid == parent).map(|(id, _)| *id));
        next += 1;
        if found.len() > MAX_PROCESSES {
            break;
        }
    }
    found
}

fn read(pid: u32) -> Option<ProcessInfo> {
    let mut info = read_stat(pid)?;
    info.uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    let mut words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    words.truncate(MAX_ARGS_BYTES);
    let text = String::from_utf8_lossy(&words).replace('\0', " ");
    info.args = if text.is_empty() { format!("[{}]", info.comm) } else { text.trim_end().into() };
    Some(info)
}

fn read_stat(pid: u32) -> Option<ProcessInfo> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat`. The name in brackets may itself hold brackets and spaces.
fn parse(pid: u32, text: &str) -> Option<ProcessInfo> {
    let (before, after) = text.rsplit_once(')')?;
    let comm = before.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    // Numbered as in the manual, where the state is the third field.
    let number = |field: usize| fields.get(field - 3)?.parse::<i64>().ok();
    let count = |field: usize| number(field).and_then(|value| u64::try_from(value).ok());
    Some(ProcessInfo {
        pid,
        ppid: u32::try_from(number(4)?).ok()?,
        uid: 0,
        state: fields.first()?.chars().next()?,
        comm,
        args: String::new(),
        tty: number(7)?,
        nice: number(19)?,
        threads: count(20)?,
        cpu_ticks: count(14)?.saturating_add(count(15)?),
        start_ticks: count(22)?,
        virtual_bytes: count(23)?,
        resident_pages: count(24)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_are_read() {
        let text = "7 (a) b (c) S 1 7 7 34816 7 4194304 1 0 0 0 12 30 0 0 20 -5 3 0 900 4096000 55 0\n";
        let info = parse(7, text).unwrap();
        assert_eq!((info.comm.as_str(), info.state, info.ppid), ("a) b (c", 'S', 1));
        assert_eq!(
            (info.cpu_ticks, info.nice, info.threads, info.start_ticks, info.resident_pages),
            (42, -5, 3, 900, 55)
        );
        for broken in ["", "7", "7 (x", "7 (x) S", "7 (x) S a b c"] {
            assert_eq!(parse(7, broken), None, "{broken}");
        }
    }

    #[test]
    fn this_process_is_found() {
        let pid = std::process::id();
        assert!(below(pid).contains(&pid));
        assert!(!read(pid).unwrap().args.is_empty());
    }
}
