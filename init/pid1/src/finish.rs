//! The last steps of a machine: end what is left, write what isn't written, unmount, stop.
//!
//! Here PID 1 may wait, since nothing else is left to do; the watchdog stays armed and ends it if it waits too long.

use std::fs;
use std::path::Path;
use std::time::Duration;

use keel_spec::control::Shutdown;
use keel_spec::last_words::LastWords;
use keel_spec::paths;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount_remount, unmount};
use rustix::process::{WaitOptions, wait};
use rustix::system::{RebootCommand, reboot};

use crate::console::Console;
use crate::farewell;
use crate::watchdog::Watchdog;

/// What the watchdog gives all of this.
const LIMIT_S: u32 = 60;
/// How long what is left has after SIGTERM, and after SIGKILL.
const TERM_WAIT: Duration = Duration::from_millis(500);
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How long a terminal has for the last line.
const MESSAGE_WAIT: Duration = Duration::from_millis(50);
/// Most mounts that are taken apart.
const MAX_MOUNTS: usize = 4096;

/// Leaves word for the next boot and stops the machine. Doesn't return, unless the kernel refuses even that.
pub fn finish(how: Shutdown, console: &mut Console, watchdog: Option<&Watchdog>, words: &LastWords) {
    if let Some(watchdog) = watchdog {
        watchdog.last_feed(LIMIT_S);
    }
    end_all(Signal::SIGTERM, TERM_WAIT);
    end_all(Signal::SIGKILL, KILL_WAIT);
    if let Err(error) = farewell::leave(Path::new(paths::LAST_WORDS), words) {
        console.say(&format!("cannot leave {} for the next boot: {error}", paths::LAST_WORDS));
    }
    rustix::fs::sync();
    for problem in unmount_state() {
        console.say(&problem);
    }
    rustix::fs::sync();
    match how {
        Shutdown::Reboot => {}
        Shutdown::Poweroff => stop("powering off", RebootCommand::PowerOff, console),
        Shutdown::Kexec => stop("starting the next kernel", RebootCommand::Kexec, console),
    }
    // Also where the kernel has no other one loaded.
    if how != Shutdown::Poweroff {
        stop("restarting", RebootCommand::Restart, console);
    }
    // No power-off without firmware's help, for one; a halted machine is what comes nearest.
    let _ = reboot(RebootCommand::Halt);
}

/// Returns only if the kernel refuses.
fn stop(text: &str, command: RebootCommand, console: &mut Console) {
    console.say(text);
    // A serial line has to send this first; asking it whether it has could take for ever.
    std::thread::sleep(MESSAGE_WAIT);
    if let Err(error) = reboot(command) {
        console.say(&format!("{text}: {error}"));
    }
}

/// Signals every process but this one, and reaps until none is left or the time is over.
fn end_all(signal: Signal, limit: Duration) {
    const PAUSE: Duration = Duration::from_millis(10);
    let _ = kill(Pid::from_raw(-1), signal);
    for _ in 0..limit.as_millis() / PAUSE.as_millis() {
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(Errno::CHILD) => return,
                Err(_) => break,
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// Unmounts the state and what is mounted below it, last mounted first; what won't go becomes read-only.
fn unmount_state() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut problems = Vec::new();
    for target in below_state(&mounts) {
        if let Err(error) = unmount(&target, UnmountFlags::NOFOLLOW) {
            problems.push(format!("cannot unmount {target}: {error}; making it read-only"));
            if let Err(error) = mount_remount(&target, MountFlags::RDONLY, c"") {
                problems.push(format!("cannot make {target} read-only: {error}"));
            }
        }
    }
    problems
}

/// Mount points at and below the state, last mounted first, from `/proc/self/mountinfo` (proc(5)).
fn below_state(mountinfo: &str) -> Vec<String> {
    let targets = mountinfo.lines().take(MAX_MOUNTS).filter_map(|line| line.split(' ').nth(4));
    let below = |target: &&str| {
        target.strip_prefix(paths::STATE_MOUNT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let mut found: Vec<String> = targets.filter(below).map(|target| target.replace("\\040", " ")).collect();
    found.reverse();
    found
}

#[cfg(test)]
mod tests {
    use super::below_state;

    #[test]
    fn only_the_state_is_unmounted_and_from_the_inside() {
        let mountinfo = "1 0 253:0 / / ro - erofs /dev/dm-0 ro\n2 1 8:5 / /var rw - ext4 /dev/vda5 rw\n\
                         3 2 0:9 / /var/lib/a\\040b rw - overlay x rw\n4 1 0:8 / /various rw - tmpfs t rw\n";
        assert_eq!(below_state(mountinfo), ["/var/lib/a b", "/var"]);
    }
}
