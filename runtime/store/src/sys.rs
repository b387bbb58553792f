//! The system calls that have no safe wrapper.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Lets a detached mount be seen through the mapping of a user namespace (mount_setattr(2), MOUNT_ATTR_IDMAP).
pub fn map_ids(mount: BorrowedFd<'_>, namespace: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::from(namespace.as_raw_fd().unsigned_abs()),
    };
    // SAFETY: the path is an empty C string, the structure is initialised and its true size is given; both descriptors
    // are open for the length of the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A process that does nothing, for the sake of its namespace. It ends with this value, or with its parent thread.
pub struct Idle {
    pid: libc::pid_t,
}

impl Idle {
    /// Starts one in a new user namespace.
    pub fn in_user_namespace() -> io::Result<Self> {
        // Without an exit signal (low byte 0): nobody's handler of SIGCHLD hears of it, nobody's wait(2) reaps it.
        let flags = libc::CLONE_NEWUSER;
        // SAFETY: like fork(2): no memory is shared and no stack given. The child calls only async-signal-safe
        // functions (prctl, pause) and never returns, so locks that other threads held don't matter.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            loop {
                // SAFETY: see above; both calls take no pointer.
                unsafe {
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::pause();
                }
            }
        }
        match libc::pid_t::try_from(pid) {
            Ok(pid) if pid > 0 => Ok(Self { pid }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Its process ID, valid as long as this value lives: nobody else reaps it.
    pub fn pid(&self) -> libc::pid_t {
        self.pid
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // SAFETY: the process is our child and hasn't been reaped, so the ID is still its own; a null status is allowed.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), libc::__WALL);
        }
    }
}
