//! Stage 2, on the verified root: make the machine ready for services, then supervise them for ever.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use keel_spec::cmdline::{self, BootParameters};
use keel_spec::control::Stage;
use keel_spec::{disk, paths};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::system::{RebootCommand, reboot};

use crate::console::Console;
use crate::disks::Disk;
use crate::machine::Machine;
use crate::trial::Trial;
use crate::watchdog::Watchdog;
use crate::{clock, mounts};

/// First argument of init, by which it knows that stage 1 came before.
pub const ARGUMENT: &str = "--stage2";

/// What stage 1 tells stage 2, as arguments: `disk=NAME`, `watchdog=FD`, `watchdog-reset`, `stage=MS=IDLE_MS=NAME`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Handover {
    /// Name of the disk that the root is on.
    pub disk: String,
    /// Open descriptor of the armed watchdog, and whether it caused the last reset.
    pub watchdog: Option<(i32, bool)>,
    /// Boot stages so far.
    pub stages: Vec<Stage>,
}

impl Handover {
    /// As arguments of init.
    pub fn render(&self) -> Vec<String> {
        let mut arguments = vec![ARGUMENT.to_owned(), format!("disk={}", self.disk)];
        if let Some((fd, caused_reset)) = self.watchdog {
            arguments.push(format!("watchdog={fd}"));
            arguments.extend(caused_reset.then(|| "watchdog-reset".to_owned()));
        }
        arguments.extend(self.stages.iter().map(|it| format!("stage={}={}={}", it.at_ms, it.idle_ms, it.name)));
        arguments
    }

    /// From arguments after [`ARGUMENT`]. What isn't understood is passed over.
    pub fn parse(arguments: &[String]) -> Self {
        let mut handover = Self::default();
        let caused_reset = arguments.iter().any(|argument| argument == "watchdog-reset");
        for (name, value) in arguments.iter().filter_map(|argument| argument.split_once('=')) {
            match name {
                "disk" => handover.disk = value.to_owned(),
                "watchdog" => handover.watchdog = value.parse().ok().map(|fd| (fd, caused_reset)),
                "stage" => handover.stages.extend(parse_stage(value)),
                _ => {}
            }
        }
        handover
    }
}

fn parse_stage(value: &str) -> Option<Stage> {
    let (at_ms, rest) = value.split_once('=')?;
    let (idle_ms, name) = rest.split_once('=')?;
    Some(Stage { name: name.to_owned(), at_ms: at_ms.parse().ok()?, idle_ms: idle_ms.parse().ok()? })
}

/// Kernel settings, below `/proc/sys`.
const SYSCTLS: [(&str, &str); 16] = [
    ("kernel/panic_on_oops", "1"),
    ("kernel/ctrl-alt-del", "0"),
    ("kernel/printk", "4 4 1 4"),
    ("kernel/dmesg_restrict", "1"),
    ("kernel/kptr_restrict", "2"),
    ("kernel/sysrq", "0"),
    ("kernel/unprivileged_bpf_disabled", "1"),
    ("kernel/yama/ptrace_scope", "1"),
    ("kernel/pid_max", "4194304"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_symlinks", "1"),
    ("fs/protected_fifos", "2"),
    ("fs/protected_regular", "2"),
    ("fs/inotify/max_user_instances", "1024"),
    ("net/ipv4/ip_forward", "1"),
    ("vm/overcommit_memory", "1"),
];

/// Runs the machine. Doesn't return, but for a fault, at which the kernel panics and so restarts the machine.
pub fn run(arguments: &[String]) -> ExitCode {
    let handover = Handover::parse(arguments);
    let mut console = Console::open();
    console.stages = handover.stages.clone();
    match prepare(&handover, &mut console) {
        Ok(machine) => machine.run(),
        Err(why) => console.say(&format!("boot failed: {why}; restarting")),
    }
    std::thread::sleep(std::time::Duration::from_secs(3));
    rustix::fs::sync();
    let _ = reboot(RebootCommand::Restart);
    ExitCode::FAILURE
}

fn prepare(handover: &Handover, console: &mut Console) -> Result<Machine, String> {
    let problems = mounts::mount_all(&mounts::STAGE_2)?;
    problems.iter().for_each(|problem| console.say(problem));
    let cmdline = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let seconds =
        |name, default: u32| cmdline::value(&cmdline, name).and_then(|text| text.parse().ok()).unwrap_or(default);
    let watchdog_s = seconds("keel.watchdog_s", BootParameters::DEFAULT_WATCHDOG_S);
    let watchdog = match handover.watchdog {
        Some((fd, caused_reset)) => Watchdog::inherit(fd, caused_reset, watchdog_s),
        None => Watchdog::arm(watchdog_s),
    };
    if let Some(watchdog) = &watchdog {
        watchdog.feed();
    }
    let clock_behind = set_clock(console);
    let _ = reboot(RebootCommand::CadOff);
    for (name, value) in SYSCTLS {
        // Not every kernel has every one.
        let _ = fs::write(Path::new("/proc/sys").join(name), value);
    }
    let files = Rlimit { current: Some(65_536), maximum: Some(524_288) };
    let _ = setrlimit(Resource::Nofile, files);
    make_cgroups().map_err(|error| format!("cannot set cgroups up: {error}"))?;
    console.stage("set the kernel up");
    let state_problem = mount_state(&handover.disk).err();
    match &state_problem {
        None => console.stage("mounted the state"),
        Some(problem) => console.say(&format!("{problem}; going on with state in memory, lost at the next restart")),
    }
    let deadline_ms = u64::from(seconds("keel.trial_s", BootParameters::DEFAULT_TRIAL_S)).saturating_mul(1000);
    let trial = Trial::of_boot(&cmdline, Path::new("/sys/firmware/efi").exists(), deadline_ms);
    let mut machine = Machine::new(std::mem::take(console), watchdog, trial, state_problem)?;
    machine.clock_behind = clock_behind;
    Ok(machine)
}

/// Sets the clock to the release's build time, if it is behind that: certificates and update metadata are never
/// older than the release that checks them. Says whether it was.
fn set_clock(console: &mut Console) -> bool {
    let os_release = fs::read_to_string(paths::OS_RELEASE).unwrap_or_default();
    let built = os_release.lines().find_map(|line| line.strip_prefix("BUILD_UNIX_S=")?.trim_matches('"').parse().ok());
    let behind = built.is_some_and(clock::not_before);
    if behind {
        console.say("the clock was behind the release's build time and has been set to it");
    }
    behind
}

/// Makes the folders of services and containers, with every controller that the kernel has.
fn make_cgroups() -> std::io::Result<()> {
    let top = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(top.join("cgroup.controllers"))?;
    for folder in [top, Path::new(paths::CGROUP_SERVICES), Path::new(paths::CGROUP_CONTAINERS)] {
        fs::create_dir_all(folder)?;
        for controller in controllers.split_ascii_whitespace() {
            // One by one: a controller that can't be handed down must not keep the others from it.
            let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
        }
    }
    Ok(())
}

/// Mounts the state partition of the root's disk, or, failing that, memory in its place. The release isn't good then
/// (the reason stands in the list of services), but the API and the console work, so that somebody can see to it.
///
/// No `nosuid`: images have setuid programs, and containers' roots lie on it. No other user than root can reach it
/// from the host.
fn mount_state(disk: &str) -> Result<(), String> {
    let attempt = || {
        let table = Disk::read(disk).ok_or_else(|| format!("disk {disk:?} has no readable partition table"))?;
        let device = table
            .labelled(disk::STATE_LABEL)
            .ok_or_else(|| format!("disk {disk} has no partition labelled {}", disk::STATE_LABEL))?;
        mount(&device, paths::STATE_MOUNT, "ext4", MountFlags::NOATIME | MountFlags::NODEV, c"errors=remount-ro")
            .map_err(|error| format!("cannot mount the state partition {}: {error}", device.display()))
    };
    let result = attempt();
    if result.is_err() {
        let _ = mount("tmpfs", paths::STATE_MOUNT, "tmpfs", MountFlags::NODEV, c"mode=0755,size=50%");
    }
    for folder in [paths::HOST_STATE, paths::UPDATER_STATE, paths::RUNTIME_STATE] {
        let _ = fs::create_dir_all(folder);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stage_1_hands_over_arrives() {
        let handover = Handover {
            disk: "nvme0n1".into(),
            watchdog: Some((7, true)),
            stages: vec![
                Stage { name: "found a=b".into(), at_ms: 812, idle_ms: 0 },
                Stage { name: "mounted".into(), at_ms: 900, idle_ms: 30 },
            ],
        };
        assert_eq!(Handover::parse(&handover.render()[1..]), handover);
        let none = Handover { disk: "vda".into(), ..Handover::default() };
        assert_eq!(Handover::parse(&none.render()[1..]), none);
    }
}
