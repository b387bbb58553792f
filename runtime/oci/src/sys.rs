//! System calls that rustix lacks. The only module with `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::caps::Sets;
use crate::seccomp::Insn;

/// Descriptor of the socket to the parent, in the executed child.
pub(crate) const SOCKET_FD: RawFd = 3;
/// Descriptor of the program, in the child before it executes it.
const PROGRAM_FD: RawFd = 4;
/// First word of the child's message when it couldn't execute the program.
pub(crate) const RAW_FAILURE: u32 = u32::MAX;

/// include/uapi/linux/sched.h; libc's constant overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child needs to know between clone3 and the execution of the program.
pub(crate) struct Fork {
    /// `CLONE_NEW…` and `CLONE_PARENT`.
    pub flags: u64,
    /// Folder of the cgroup it starts in.
    pub cgroup: Option<OwnedFd>,
    /// Its end of the socket, at least 10, like the following: so that they can be put in their places.
    pub socket: OwnedFd,
    /// Standard input, output, error.
    pub stdio: [OwnedFd; 3],
    /// The program, opened with `O_PATH`.
    pub program: OwnedFd,
    /// Whether it becomes root of its user namespace before it goes on.
    pub mapped: bool,
}

/// Makes the child. It waits for one byte on the socket, then executes `program oci-init`.
pub(crate) fn fork(f: &Fork) -> io::Result<(u32, OwnedFd)> {
    let mut pidfd: RawFd = -1;
    let mut flags = f.flags | libc::CLONE_PIDFD as u64;
    if f.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // clone3 wants no exit signal with CLONE_PARENT: the child then has the caller's own.
    let exit_signal = if flags & libc::CLONE_PARENT as u64 != 0 { 0 } else { libc::SIGCHLD as u64 };
    let args = libc::clone_args {
        flags,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: f.cgroup.as_ref().map_or(0, |c| c.as_raw_fd() as u64),
    };
    // SAFETY: without CLONE_VM the child runs on a copy of this memory; it calls only `child`, which makes system calls
    // and nothing else until it executes another program or exits, so no lock of another thread can matter to it.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: this is the child of the clone3 above.
        0 => unsafe { child(f) },
        // SAFETY: the kernel stored a new descriptor that nobody else owns.
        pid => Ok((pid as u32, unsafe { OwnedFd::from_raw_fd(pidfd) })),
    }
}

/// The child between clone3 and execveat.
///
/// # Safety
/// Only in a process that has just been cloned. Only system calls: no allocation, no lock, no drop.
unsafe fn child(f: &Fork) -> ! {
    let socket = f.socket.as_raw_fd();
    let mut go = 0u8;
    // SAFETY: plain system calls on descriptors and memory of this process, which no other thread shares.
    unsafe {
        if libc::read(socket, (&raw mut go).cast(), 1) != 1 {
            libc::_exit(1);
        }
        let mut step = 1u32;
        let ok = 'steps: {
            if f.mapped {
                // Raw calls: the C library's would signal threads that don't exist in this copy.
                if libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) != 0
                    || libc::syscall(libc::SYS_setresgid, 0, 0, 0) != 0
                    || libc::syscall(libc::SYS_setresuid, 0, 0, 0) != 0
                {
                    break 'steps false;
                }
            }
            step = 2;
            for (at, fd) in f.stdio.iter().enumerate() {
                if libc::dup2(fd.as_raw_fd(), at as RawFd) < 0 {
                    break 'steps false;
                }
            }
            if libc::dup2(socket, SOCKET_FD) < 0
                || libc::dup3(f.program.as_raw_fd(), PROGRAM_FD, libc::O_CLOEXEC) < 0
                || libc::syscall(libc::SYS_close_range, PROGRAM_FD + 1, u32::MAX, 0) != 0
            {
                break 'steps false;
            }
            step = 3;
            let argv = [c"keel-oci".as_ptr(), c"oci-init".as_ptr(), std::ptr::null()];
            let envp = [std::ptr::null::<libc::c_char>()];
            libc::syscall(
                libc::SYS_execveat,
                PROGRAM_FD,
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            false
        };
        debug_assert!(!ok);
        let message = [RAW_FAILURE, step, *libc::__errno_location() as u32];
        let socket = if step == 3 { SOCKET_FD } else { socket };
        libc::write(socket, message.as_ptr().cast(), size_of_val(&message));
        libc::_exit(1)
    }
}

/// Closes every descriptor from `first` on, at the next execution of a program.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: no memory is passed; descriptors stay open in this process.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// Takes the socket that [`fork`] put in its place.
pub(crate) fn take_socket() -> io::Result<OwnedFd> {
    // SAFETY: asks whether the descriptor is open.
    check(unsafe { libc::fcntl(SOCKET_FD, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: called once, at the start of `init_main`, where nothing else owns descriptor 3.
    Ok(unsafe { OwnedFd::from_raw_fd(SOCKET_FD) })
}

/// mount_setattr(2).
pub(crate) fn mount_setattr(
    mount: BorrowedFd<'_>,
    recursive: bool,
    set: u64,
    clear: u64,
    propagation: u64,
    userns: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: set,
        attr_clr: clear,
        propagation,
        userns_fd: userns.map_or(0, |u| u.as_raw_fd() as u64),
    };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path and the structure live through the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
}

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

/// Drops from the bounding set what `keep` lacks; stops at the first number the kernel doesn't know.
pub(crate) fn limit_bounding_set(keep: u64) -> io::Result<()> {
    for cap in 0..64 {
        // SAFETY: prctl with plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) } < 0 {
            return Ok(());
        }
        if keep & (1 << cap) == 0 {
            // SAFETY: prctl with plain numbers.
            check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) }.into())?;
        }
    }
    Ok(())
}

/// Keeps permitted capabilities over a change of user.
pub(crate) fn keep_capabilities() -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) }.into())
}

/// Sets user, group and supplementary groups of this process, which has one thread.
pub(crate) fn set_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the groups live through the call; raw calls, for the one thread there is.
    unsafe {
        check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()))?;
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
}

/// Sets the effective, permitted, inheritable and ambient sets, as far as this process has them: what the host's own
/// bounding set lacks can't be given to anybody, and "all" means all there are.
pub(crate) fn set_capabilities(sets: &Sets) -> io::Result<()> {
    /// `_LINUX_CAPABILITY_VERSION_3`.
    const VERSION: u32 = 0x2008_0522;
    let header = [VERSION, 0u32];
    let mut had = [[0u32; 3]; 2];
    // SAFETY: header and both data words have the kernel's layout and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), had.as_mut_ptr()) })?;
    let available = u64::from(had[0][1]) | u64::from(had[1][1]) << 32;
    let sets = Sets {
        bounding: sets.bounding,
        effective: sets.effective & available,
        inheritable: sets.inheritable & available,
        permitted: sets.permitted & available,
        ambient: sets.ambient & available,
    };
    let low = |m: u64| m as u32;
    let high = |m: u64| (m >> 32) as u32;
    let data = [
        [low(sets.effective), low(sets.permitted), low(sets.inheritable)],
        [high(sets.effective), high(sets.permitted), high(sets.inheritable)],
    ];
    // SAFETY: header and both data words have the kernel's layout and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })?;
    // SAFETY: prctl with plain numbers.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) }.into())?;
    for cap in (0..64).filter(|c| sets.ambient & (1 << c) != 0) {
        // SAFETY: prctl with plain numbers.
        check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, cap, 0, 0) }.into())?;
    }
    Ok(())
}

/// `PR_SET_NO_NEW_PRIVS`.
pub(crate) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())
}

/// `PR_SET_DUMPABLE` off: nobody else in a shared namespace may look into this process while it sets things up.
pub(crate) fn not_dumpable() -> io::Result<()> {
    // SAFETY: prctl with plain numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }.into())
}

/// Puts a system call filter in force.
pub(crate) fn set_seccomp(program: &[Insn]) -> io::Result<()> {
    let filter: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let prog = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    // SAFETY: program and filter live through the call; the kernel copies and checks them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const prog) })
}

/// Leaves the calling thread's namespace for another of the same kind.
pub(crate) fn join_namespace(ns: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: affects the calling thread alone.
    check(unsafe { libc::setns(ns.as_raw_fd(), 0) }.into())
}

/// A cgroup namespace of its own, rooted where this process is.
pub(crate) fn new_cgroup_namespace() -> io::Result<()> {
    // SAFETY: affects the calling thread alone, and it is the only one.
    check(unsafe { libc::unshare(libc::CLONE_NEWCGROUP) }.into())
}

/// Loads a device filter (`BPF_PROG_TYPE_CGROUP_DEVICE`) and attaches it to a cgroup.
pub(crate) fn attach_device_filter(cgroup: BorrowedFd<'_>, program: &[u64]) -> io::Result<()> {
    const PROG_LOAD: u32 = 5;
    const PROG_ATTACH: u32 = 8;
    const TYPE_CGROUP_DEVICE: u32 = 15;
    const ATTACH_CGROUP_DEVICE: u32 = 6;
    let license: &CStr = c"Apache-2.0";
    // The first fields of `union bpf_attr` for BPF_PROG_LOAD: type and count, instructions, licence.
    let count = program.len() as u64;
    let load: [u64; 6] =
        [u64::from(TYPE_CGROUP_DEVICE) | count << 32, program.as_ptr() as u64, license.as_ptr() as u64, 0, 0, 0];
    // SAFETY: instructions and licence live through the call; the kernel verifies the program.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, load.as_ptr(), size_of_val(&load)) };
    check(fd)?;
    // SAFETY: a new descriptor that nobody else owns.
    let prog = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    // Target, program, type, flags (0: replaces nothing, no other program may be added below).
    let attach: [u32; 5] = [cgroup.as_raw_fd() as u32, prog.as_fd().as_raw_fd() as u32, ATTACH_CGROUP_DEVICE, 0, 0];
    // SAFETY: the structure lives through the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, attach.as_ptr(), size_of_val(&attach)) })
}

/// execve(2); returns only the error.
pub(crate) fn execute(path: &CStr, args: &[CString], env: &[CString]) -> io::Error {
    let pointers = |words: &[CString]| words.iter().map(|w| w.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>();
    let (args, env) = (pointers(args), pointers(env));
    // SAFETY: both lists end with a null pointer and live, like the strings, through the call.
    unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
    io::Error::last_os_error()
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
