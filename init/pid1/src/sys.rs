//! System calls that no crate wraps safely: `clone3`, ioctls of the watchdog and of device-mapper.
//!
//! The only module that may contain `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Result of [`clone_into_cgroup`].
pub enum Cloned {
    /// In the new process.
    Child,
    /// In the caller: the new process's ID and a pidfd for it.
    Parent(i32, OwnedFd),
}

/// Forks into a cgroup v2 folder (clone3(2), `CLONE_INTO_CGROUP`), so that the new process never runs outside it.
///
/// Like `fork`, without shared memory: this program has one thread, so the child may go on using the heap.
pub fn clone_into_cgroup(cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    /// libc's constant is one bit too short for it.
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut pidfd: RawFd = -1;
    // SAFETY: `clone_args` is a plain struct of integers for which all zeroes is valid.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` is valid for its size and lives through the call; without CLONE_VM the child has memory of its
    // own, so this is a fork of a program with one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(Cloned::Child),
        // SAFETY: on success the kernel stored a new descriptor in `pidfd`, which nobody else owns.
        pid if pid > 0 => Ok(Cloned::Parent(pid as i32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends a forked child at once, without running what the parent registered for its exit.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` only ends the process.
    unsafe { libc::_exit(code) }
}

/// Closes every descriptor from 3 up (close_range(2)). For a forked child just before exec; not before then, since
/// owners elsewhere in the program would be left with descriptors that aren't theirs.
pub fn close_all_but_stdio() {
    // SAFETY: called in a child that goes on to exec or exit and touches no descriptor above 2 after this.
    unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

/// Sets every signal back to its default action (Rust's runtime ignores SIGPIPE, which exec would pass on) and
/// unblocks all of them.
pub fn reset_signals() {
    for signal in 1..65 {
        // SAFETY: SIG_DFL installs no code; numbers that can't be changed are refused by the kernel.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Takes over a descriptor that the previous program image left open across exec.
///
/// `None` if there is no such descriptor, or it is one of the standard three.
pub fn inherit(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD on any number only asks; `fd` is above stdio and was named by stage 1 for this very purpose,
    // before this program opened anything of its own.
    unsafe { (fd > 2 && libc::fcntl(fd, libc::F_GETFD) >= 0).then(|| OwnedFd::from_raw_fd(fd)) }
}

/// Ioctls of watchdog devices (kernel: `Documentation/watchdog/watchdog-api.rst`).
#[derive(Clone, Copy)]
pub enum WatchdogIoctl {
    /// `WDIOC_GETSTATUS`.
    Status,
    /// `WDIOC_GETBOOTSTATUS`.
    BootStatus,
    /// `WDIOC_KEEPALIVE`.
    KeepAlive,
    /// `WDIOC_SETTIMEOUT`, in seconds; the kernel stores what it chose.
    SetTimeout(i32),
}

/// Runs a watchdog ioctl and returns the integer that it leaves.
pub fn watchdog(fd: impl AsFd, call: WatchdogIoctl) -> io::Result<i32> {
    const fn read(number: u32) -> u32 {
        2 << 30 | 4 << 16 | (b'W' as u32) << 8 | number
    }
    let (request, mut value) = match call {
        WatchdogIoctl::Status => (read(1), 0),
        WatchdogIoctl::BootStatus => (read(2), 0),
        WatchdogIoctl::KeepAlive => (read(5), 0),
        WatchdogIoctl::SetTimeout(seconds) => (read(6) | 1 << 30, seconds),
    };
    // SAFETY: each of these ioctls reads or writes one int, which `value` is.
    match unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request as libc::Ioctl, &raw mut value) } {
        0.. => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Runs a device-mapper ioctl (kernel: `include/uapi/linux/dm-ioctl.h`) on a buffer that begins with its
/// `struct dm_ioctl`, whose `data_size` this sets to the buffer's length.
pub fn device_mapper(fd: impl AsFd, number: u8, buffer: &mut [u8]) -> io::Result<()> {
    const STRUCT_BYTES: u32 = 312;
    let (Ok(length), true) = (u32::try_from(buffer.len()), buffer.len() >= STRUCT_BYTES as usize) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if let Some(field) = buffer.get_mut(12..16) {
        field.copy_from_slice(&length.to_ne_bytes());
    }
    let request = 3 << 30 | STRUCT_BYTES << 16 | 0xfd << 8 | u32::from(number);
    // SAFETY: the kernel reads and writes at most `data_size` bytes, which was just set to the buffer's length.
    match unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request as libc::Ioctl, buffer.as_mut_ptr()) } {
        0.. => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
