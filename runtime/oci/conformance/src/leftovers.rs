//! What must be gone once a case has ended: containers, processes, mounts, cgroups.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use crate::container::process_state;
use crate::lab::Lab;
use crate::process;

/// Deepest folder below `/sys/fs/cgroup` that is looked into.
const MAX_DEPTH: usize = 8;
/// How often what is on its way out is looked for, and the time between.
const GONE_TRIES: u32 = 100;
const STEP: Duration = Duration::from_millis(4);

/// Ends what the case has left, then says what the runtime itself failed to take away.
pub(crate) fn sweep(lab: &Lab) -> Vec<String> {
    for id in lab.ids.borrow().iter() {
        if lab.call(&["state", id]).is_ok_and(|output| output.code == 0) {
            let _ = lab.call(&["delete", "--force", id]);
        }
    }
    for pid in lab.pids.borrow().iter().filter_map(|pid| Pid::from_raw(*pid as i32)) {
        let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
    }
    process::reap_orphans();
    let mut left = processes(&lab.token);
    left.extend(mounts(&lab.dir));
    left.extend(states(lab));
    left.extend(cgroups(&lab.token));
    let _ = fs::remove_dir_all(&lab.dir);
    left
}

/// Processes whose environment holds the token, ended. One that is on its way out is waited for.
fn processes(token: &str) -> Vec<String> {
    let found = || -> Vec<(u32, String)> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter_map(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
            let marker = format!("KEEL_CASE={token}");
            environment.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes()).then_some(())?;
            (process_state(pid) != Some('Z')).then_some(())?;
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            Some((pid, String::from_utf8_lossy(&command).replace('\0', " ")))
        })
        .collect()
    };
    // The runtime may end a moment before what it has killed is gone.
    let mut last = Vec::new();
    for _ in 0..GONE_TRIES {
        last = found();
        if last.is_empty() {
            return Vec::new();
        }
        std::thread::sleep(STEP);
    }
    for (pid, _) in &last {
        if let Some(pid) = Pid::from_raw(*pid as i32) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
    last.into_iter().map(|(pid, command)| format!("process {pid} ({})", command.trim())).collect()
}

/// Mounts below the folder, taken away.
fn mounts(dir: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut points: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with(dir))
        .collect();
    points.reverse();
    for point in &points {
        let _ = rustix::mount::unmount(point, UnmountFlags::DETACH);
    }
    points.iter().map(|point| format!("mount {}", point.display())).collect()
}

/// Folders of containers in the runtime's state folder.
fn states(lab: &Lab) -> Vec<String> {
    let ids = lab.ids.borrow();
    let left = ids.iter().filter(|id| lab.dir.join("state").join(id.as_str()).exists());
    left.map(|id| format!("state of {id}")).collect()
}

/// cgroups whose name holds the token, removed.
fn cgroups(token: &str) -> Vec<String> {
    let mut found = Vec::new();
    collect(Path::new("/sys/fs/cgroup"), token, 0, &mut found);
    // A killed process leaves its cgroup only when it is reaped.
    let gone = (0..GONE_TRIES).any(|_| {
        found.iter().for_each(|path| remove(path));
        let gone = found.iter().all(|path| !path.exists());
        if !gone {
            std::thread::sleep(STEP);
        }
        gone
    });
    let mut left: Vec<String> = found.iter().map(|path| format!("cgroup {}", path.display())).collect();
    if !gone {
        left.push("processes in these cgroups".to_owned());
    }
    left
}

fn collect(dir: &Path, token: &str, depth: usize, found: &mut Vec<PathBuf>) {
    if depth > MAX_DEPTH {
        return;
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_string_lossy().contains(token) {
            found.push(entry.path());
        } else {
            collect(&entry.path(), token, depth + 1, found);
        }
    }
}

fn remove(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::write(dir.join("cgroup.kill"), "1");
    let _ = fs::remove_dir(dir);
}

/// The folder that all cases' cgroups are in.
pub(crate) fn remove_parents() -> Result<()> {
    let mut found = Vec::new();
    collect(Path::new("/sys/fs/cgroup"), "keel-conformance", 0, &mut found);
    for path in found {
        let _ = fs::remove_dir(path);
    }
    Ok(())
}
