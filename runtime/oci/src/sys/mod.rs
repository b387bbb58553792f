//! System calls that rustix lacks. The only module with `unsafe`.
//!
//! - [`fork`]: the child, from clone3 to the execution of this program in it
//! - `signal`: signals
#![allow(unsafe_code)]

mod fork;
mod signal;

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::caps::Sets;
use crate::seccomp::Insn;

pub(crate) use fork::{Carrier, Fork, RAW_FAILURE, close_on_exec_from, fork, raw_step, take_socket};
pub(crate) use signal::{block_signals, pidfd_send_signal, reset_signals};

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
        match check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr())) {
            // Where the mapping was written without privileges, groups stay as they are (user_namespaces(7)).
            Err(e) if e.raw_os_error() == Some(libc::EPERM) && groups.is_empty() => {}
            other => other?,
        }
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

/// Puts a system call filter in force, with `SECCOMP_FILTER_FLAG_…`; with a listener, returns it.
pub(crate) fn set_seccomp(program: &[Insn], flags: u64, listens: bool) -> io::Result<Option<OwnedFd>> {
    let filter: Vec<libc::sock_filter> =
        program.iter().map(|&(code, jt, jf, k)| libc::sock_filter { code, jt, jf, k }).collect();
    let len = u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let prog = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let flags = flags | if listens { libc::SECCOMP_FILTER_FLAG_NEW_LISTENER } else { 0 };
    // SAFETY: program and filter live through the call; the kernel copies and checks them.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const prog) };
    check(fd)?;
    // SAFETY: with that flag the result is a new descriptor that nobody else owns.
    Ok(listens.then(|| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }))
}

/// Joins namespaces of a process, of these kinds (`CLONE_NEW…`), all or none.
pub(crate) fn join(process: BorrowedFd<'_>, kinds: i32) -> io::Result<()> {
    // SAFETY: plain numbers; affects the calling thread alone, and it is the only one.
    check(unsafe { libc::setns(process.as_raw_fd(), kinds) }.into())
}

/// Becomes root of the user namespace that this process is in. Only system calls: for a process just cloned, too.
pub(crate) fn become_root() -> bool {
    // SAFETY: raw calls with plain numbers; the C library's would signal threads that don't exist in a cloned copy.
    unsafe {
        let groups = libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>());
        // Where the mapping was written without privileges, there is no setgroups (user_namespaces(7)).
        (groups == 0 || *libc::__errno_location() == libc::EPERM)
            && libc::syscall(libc::SYS_setresgid, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_setresuid, 0, 0, 0) == 0
    }
}

/// A session keyring of its own, so that the host's isn't inherited (session-keyring(7)). Without keys in the kernel
/// there is nothing to do.
pub(crate) fn new_session_keyring(name: &str) -> io::Result<()> {
    let name = CString::new(name)?;
    // SAFETY: the name lives through the call.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) }) {
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        other => other,
    }
}

/// A copy of a descriptor that this process was given by number.
pub(crate) fn copy_descriptor(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: makes a new descriptor, or fails if there is none of that number.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    check(copy.into())?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Puts copies of descriptors, none of which may be in that range, at 3 and following, for the program to keep.
pub(crate) fn place_from_3(fds: &[OwnedFd]) -> io::Result<()> {
    for (at, fd) in fds.iter().enumerate() {
        // SAFETY: plain numbers; the caller owns nothing at the places.
        check(unsafe { libc::dup2(fd.as_raw_fd(), 3 + at as RawFd) }.into())?;
    }
    Ok(())
}

/// A time namespace for what is executed next.
pub(crate) fn new_time_namespace() -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::unshare(libc::CLONE_NEWTIME) }.into())
}

/// The execution domain of this process.
pub(crate) fn personality(domain: u32) -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::personality(domain.into()) }.into())
}

/// `struct sched_attr` of sched_setattr(2), as of its first version.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct SchedAttr {
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// sched_setattr(2).
pub(crate) fn sched_setattr(pid: u32, attr: &SchedAttr) -> io::Result<()> {
    // SAFETY: the structure has the kernel's layout, says its size, and lives through the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const *attr, 0) })
}

/// ioprio_set(2) for one process.
pub(crate) fn ioprio_set(pid: u32, value: i32) -> io::Result<()> {
    /// `IOPRIO_WHO_PROCESS`.
    const PROCESS: i32 = 1;
    // SAFETY: plain numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, PROCESS, pid, value) })
}

/// A user namespace of its own, and a mount namespace that belongs to it. This process must have one thread.
pub(crate) fn new_user_namespace() -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) }.into())
}

/// A mount namespace of its own.
pub(crate) fn new_mount_namespace() -> io::Result<()> {
    // SAFETY: plain numbers.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())
}

/// Namespaces of its own, `CLONE_NEW…`.
pub(crate) fn new_namespaces(kinds: i32) -> io::Result<()> {
    // SAFETY: plain numbers; affects the calling thread alone, and it is the only one.
    check(unsafe { libc::unshare(kinds) }.into())
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
