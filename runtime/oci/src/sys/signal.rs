//! Signals: defaults, blocking, sending.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// Puts all signals back to their defaults and unblocks them: a program is executed with what this one ignored.
pub(crate) fn reset_signals() {
    // The kernel's `struct sigaction`: handler (SIG_DFL), flags, restorer, mask.
    let default = [0u64; 4];
    for signal in 1..=64 {
        // SAFETY: no handler is installed; signals that can't be changed are refused, which is fine. Raw, because the
        // C library keeps two of them for itself.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), 8) };
    }
    // SAFETY: an all-zero sigset_t is the empty set on Linux, and the old one isn't asked for.
    unsafe {
        let empty: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const empty, std::ptr::null_mut());
    }
}

/// Sends a signal of any number, 0 included.
pub(crate) fn pidfd_send_signal(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, none, 0) })
}

/// Blocks all signals and opens a descriptor to read them from (signalfd(2)).
pub(crate) fn block_signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigfillset and lives through the calls; a new descriptor is nobody else's.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut()).into())?;
        let fd: RawFd = libc::signalfd(-1, &raw const all, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
        check(fd.into())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}
