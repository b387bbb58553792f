//! The hardware watchdog: resets the machine when PID 1 doesn't feed it in time.
//!
//! Opened once, in stage 1, and never closed: closing could disarm it. The descriptor goes to stage 2 across exec.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::sys::{self, WatchdogIoctl};

const DEVICE: &str = "/dev/watchdog0";
/// `WDIOF_CARDRESET`: the last reset came from the card.
const CARD_RESET: i32 = 0x20;

/// An armed watchdog.
pub struct Watchdog {
    device: OwnedFd,
    /// Whether the reset before this boot came from it.
    pub caused_reset: bool,
    /// Milliseconds between two feedings.
    pub feed_every_ms: u64,
}

impl Watchdog {
    /// Arms the watchdog, with a time-out of `timeout_s`. `None` while there is no device.
    pub fn arm(timeout_s: u32) -> Option<Self> {
        let device = OwnedFd::from(File::options().write(true).open(DEVICE).ok()?);
        // Asked before anything else is: drivers may forget it at the first feeding.
        let flags = |call| sys::watchdog(&device, call).unwrap_or(0);
        let status = flags(WatchdogIoctl::BootStatus) | flags(WatchdogIoctl::Status);
        Some(Self::set_up(device, status & CARD_RESET != 0, timeout_s))
    }

    /// Takes over the watchdog that stage 1 armed.
    pub fn inherit(fd: RawFd, caused_reset: bool, timeout_s: u32) -> Option<Self> {
        let device = sys::inherit(fd)?;
        let _ = rustix::io::fcntl_setfd(&device, rustix::io::FdFlags::CLOEXEC);
        Some(Self::set_up(device, caused_reset, timeout_s))
    }

    fn set_up(device: OwnedFd, caused_reset: bool, timeout_s: u32) -> Self {
        let asked = i32::try_from(timeout_s.clamp(1, 3600)).unwrap_or(30);
        let chosen = sys::watchdog(&device, WatchdogIoctl::SetTimeout(asked)).unwrap_or(asked).max(1);
        let feed_every_ms = u64::try_from(chosen).unwrap_or(1).saturating_mul(1000) / 3;
        Self { device, caused_reset, feed_every_ms }
    }

    /// Gives it another full time-out.
    pub fn feed(&self) {
        let _ = sys::watchdog(&self.device, WatchdogIoctl::KeepAlive);
    }

    /// Gives a shutdown `timeout_s` at most.
    pub fn last_feed(&self, timeout_s: u32) {
        let asked = i32::try_from(timeout_s).unwrap_or(60);
        let _ = sys::watchdog(&self.device, WatchdogIoctl::SetTimeout(asked));
        self.feed();
    }

    /// Leaves the descriptor open across exec, and names it.
    pub fn pass_on(&self) -> RawFd {
        let _ = rustix::io::fcntl_setfd(&self.device, rustix::io::FdFlags::empty());
        self.device.as_fd().as_raw_fd()
    }
}
