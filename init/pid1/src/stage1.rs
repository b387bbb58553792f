//! Stage 1, in the initrd: find the root whose hash is on the kernel's command line, verify it, go there.
//!
//! Nothing here can be configured and nothing is parsed that isn't signed, but for the disks' partition tables. What
//! can't be put right leads to a restart, so that the boot loader's counter moves on to the other release.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use keel_spec::cmdline::BootParameters;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, mount};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use rustix::system::{RebootCommand, reboot};

use crate::coldplug::Tier;
use crate::console::Console;
use crate::disks::{RootPartitions, find_root};
use crate::modules::Modules;
use crate::watchdog::Watchdog;
use crate::{clock, coldplug, mounts, rotten, stage2, switch_root, verity};

/// Where the verified root is mounted until it becomes `/`.
const NEW_ROOT: &str = "/sysroot";
/// Modules without a device whose alias would ask for them. SHA-256 with the processor's vector instructions comes
/// first, since dm-verity takes the best there is when it is set up.
const MODULES: [&str; 4] = ["sha256-ssse3", "dm-verity", "erofs", "efi-pstore"];
/// Longest wait for the disk.
const DISK_WAIT_MS: u64 = 30_000;
/// How long a message about a failure stays readable.
const MESSAGE_WAIT: Duration = Duration::from_secs(3);

/// Boots into the verified root. Doesn't return: either another program takes over, or the machine restarts.
pub fn run() -> ExitCode {
    let mounted = mounts::mount_all(&mounts::STAGE_1);
    let mut console = Console::open();
    console.stage("kernel handed over to stage 1");
    let why = match mounted {
        Ok(_) => boot(&mut console),
        Err(problem) => problem,
    };
    console.say(&format!("boot failed: {why}; restarting, so that the boot loader counts this try"));
    std::thread::sleep(MESSAGE_WAIT);
    rustix::fs::sync();
    let _ = reboot(RebootCommand::Restart);
    // Ending makes the kernel panic, and `panic=` restart the machine.
    ExitCode::FAILURE
}

/// Returns only if it fails, with the reason.
fn boot(console: &mut Console) -> String {
    match prepare(console) {
        Ok(handover) => {
            let error = switch_root::exec("/sbin/init", &handover);
            format!("cannot execute /sbin/init of the verified root: {error}")
        }
        Err(why) => why,
    }
}

/// Everything up to the verified root being `/`. Returns the arguments of its init.
fn prepare(console: &mut Console) -> Result<Vec<String>, String> {
    let cmdline = fs::read_to_string("/proc/cmdline").map_err(|error| format!("cannot read /proc/cmdline: {error}"))?;
    let parameters = BootParameters::parse(&cmdline).map_err(|error| error.to_string())?;
    restart_on_panic();
    let uevents = uevents().map_err(|error| format!("cannot listen for devices: {error}"))?;
    let modules = Modules::open();
    let mut devices = Devices::new(modules, parameters.watchdog_s);
    // First of all, for the watchdog; while the disks are being looked at by the kernel, the rest.
    devices.drive(Tier::Virtual, console);
    for name in MODULES {
        match devices.modules.load(name) {
            Ok(_) => {}
            Err(error) => console.say(&format!("cannot load kernel module {name}: {error}")),
        }
    }
    let root = wait_for_root(&mut devices, &uevents, &parameters, console)?;
    console.stage("found the root's partitions");
    rotten::name_root(&parameters.root_hash.to_string());
    rotten::leave_if_rotten(&parameters.root_hash, &root.disk, &devices.modules, console);
    let device = verity::set_up(&root, parameters.root_blocks, &parameters.root_hash)
        .map_err(|error| format!("cannot set dm-verity up over {}: {error}", root.data.display()))?;
    fs::create_dir_all(NEW_ROOT).map_err(|error| format!("cannot create {NEW_ROOT}: {error}"))?;
    mount(&device, NEW_ROOT, "erofs", MountFlags::RDONLY, None)
        .map_err(|error| format!("cannot mount the verified root {}: {error}", device.display()))?;
    console.stage("mounted the verified root");
    let handover = stage2::Handover {
        disk: root.disk,
        watchdog: devices.watchdog.as_ref().map(|watchdog| (watchdog.pass_on(), watchdog.caused_reset)),
        stages: std::mem::take(&mut console.stages),
    };
    if let Some(watchdog) = &devices.watchdog {
        watchdog.feed();
    }
    // The descriptor must stay open when `devices` goes: closing it could disarm the watchdog.
    std::mem::forget(devices.watchdog.take());
    switch_root::switch_root(Path::new(NEW_ROOT), &["/dev", "/proc", "/sys"])
        .map_err(|error| format!("cannot switch to the verified root: {error}"))?;
    Ok(handover.render())
}

/// A panic restarts the machine, whatever the command line says.
fn restart_on_panic() {
    let path = "/proc/sys/kernel/panic";
    if fs::read_to_string(path).is_ok_and(|text| text.trim() == "0") {
        let _ = fs::write(path, "5");
    }
}

/// Devices that drivers have been loaded for.
struct Devices {
    modules: Modules,
    tried: BTreeSet<String>,
    watchdog: Option<Watchdog>,
    watchdog_s: u32,
}

impl Devices {
    fn new(modules: Modules, watchdog_s: u32) -> Self {
        Self { modules, tried: BTreeSet::new(), watchdog: None, watchdog_s }
    }

    /// Loads drivers of devices that have turned up, and arms the watchdog as soon as it is there.
    fn drive(&mut self, tier: Tier, console: &mut Console) {
        coldplug::round(&self.modules, tier, &mut self.tried);
        if self.watchdog.is_none() {
            self.watchdog = Watchdog::arm(self.watchdog_s);
            if let Some(watchdog) = &self.watchdog {
                console.stage("armed the watchdog");
                if watchdog.caused_reset {
                    console.say("the watchdog caused the last reset: the machine hung");
                }
            }
        }
    }
}

/// Waits until both partitions of the root are there.
fn wait_for_root(
    devices: &mut Devices,
    uevents: &OwnedFd,
    parameters: &BootParameters,
    console: &mut Console,
) -> Result<RootPartitions, String> {
    let deadline_ms = clock::boot_ms().saturating_add(DISK_WAIT_MS);
    let mut tier = Tier::Virtual;
    loop {
        // Events from before the look are dropped: the look sees what they told of.
        drain(uevents);
        devices.drive(tier, console);
        if let Some(root) = find_root(&parameters.root_hash) {
            return Ok(root);
        }
        // Most often the root is on a disk that costs one small driver. Only if not, SCSI and SATA come in.
        if tier != Tier::All {
            tier = Tier::All;
            continue;
        }
        let left_ms = deadline_ms.saturating_sub(clock::boot_ms());
        if left_ms == 0 {
            return Err(format!(
                "no disk has the two partitions of the root with hash {} (disks seen: {}); was the slot erased, or is \
                 the disk's driver missing?",
                parameters.root_hash,
                crate::disks::names().join(" ")
            ));
        }
        if let Some(watchdog) = &devices.watchdog {
            watchdog.feed();
        }
        // At least once a second, for disks whose medium changes without an event.
        wait_readable(uevents, left_ms.min(1000));
    }
}

fn uevents() -> std::io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::KOBJECT_UEVENT))?;
    // Group 1 is the kernel's own messages.
    bind(&socket, &SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

/// Drops waiting events; bounded, so that a device that flaps can't keep this busy.
fn drain(socket: &OwnedFd) {
    let mut buffer = [0; 8192];
    for _ in 0..4096 {
        match recv(socket, &mut buffer, RecvFlags::DONTWAIT) {
            Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

fn wait_readable(socket: &OwnedFd, timeout_ms: u64) {
    let timeout = Timespec {
        tv_sec: i64::try_from(timeout_ms / 1000).unwrap_or(1),
        tv_nsec: i64::try_from(timeout_ms % 1000 * 1_000_000).unwrap_or(0),
    };
    let _ = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout));
}
