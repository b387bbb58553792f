//! System calls that rustix lacks. The only module with `unsafe`.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Makes a system call whose arguments are plain numbers; a call that takes pointers gets addresses that the kernel
/// refuses (`EFAULT`), unless they are 0.
pub(crate) fn call(number: i64, arguments: [u64; 6]) -> io::Result<i64> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: callers pass numbers, never addresses of this program's memory, so the kernel can't write to it.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// `sched_getattr(2)` of this process: policy, flags, nice, priority, runtime, deadline, period.
pub(crate) fn scheduler() -> io::Result<[u64; 7]> {
    let mut attr = [0u8; 56];
    // SAFETY: the kernel writes at most the 56 bytes that it is told of, to a buffer of that size.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, attr.as_mut_ptr(), attr.len() as u32, 0) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    let word = |at: usize| u32::from_ne_bytes([attr[at], attr[at + 1], attr[at + 2], attr[at + 3]]);
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    let nice = word(16) as i32;
    Ok([u64::from(word(4)), long(8), nice as i64 as u64, u64::from(word(20)), long(24), long(32), long(40)])
}

/// Waits for this child, without taking others' ends; status as of `wait(2)` and the peak memory in KiB.
pub(crate) fn wait4(pid: u32) -> io::Result<(i32, i64)> {
    let mut status = 0;
    // SAFETY: `rusage` consists of integers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the types that the call writes.
    let result = unsafe { libc::wait4(pid as i32, &mut status, 0, &mut usage) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok((status, usage.ru_maxrss)) }
}

/// Takes over a descriptor that was inherited, if it is open.
pub(crate) fn inherited(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD reads a flag and touches no memory.
    if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: the descriptor is open, and nothing else in this program owns one that it didn't open itself.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes 32-bit system call `number` by `int 0x80` with a first argument, the others being 0; result as the kernel returns
/// it (negative: error number).
pub(crate) fn call_32(number: u32, argument: u32) -> i64 {
    let result: i64;
    // SAFETY: only used for calls that touch no memory with these arguments. rbx, which the compiler keeps for itself, is
    // restored; r8-r11 are declared.
    unsafe {
        std::arch::asm!("xchg {argument:r}, rbx", "int 0x80", "xchg {argument:r}, rbx",
            argument = inout(reg) u64::from(argument) => _, inlateout("rax") i64::from(number) => result,
            in("rcx") 0u64, in("rdx") 0u64, in("rsi") 0u64, in("rdi") 0u64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _);
    }
    i64::from(result as i32)
}

/// Has a signal ignored, also by what is executed later.
pub(crate) fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: SIG_IGN is no function of this program.
    if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// What SELinux labels the session keyring with (`KEYCTL_GET_SECURITY`), without the NUL byte at its end.
pub(crate) fn session_keyring_label() -> io::Result<String> {
    let mut label = [0u8; 256];
    let (verb, keyring) = (libc::KEYCTL_GET_SECURITY, libc::KEY_SPEC_SESSION_KEYRING);
    // SAFETY: the kernel writes at most as many bytes as the buffer, whose length it is told, has.
    let length = unsafe { libc::syscall(libc::SYS_keyctl, verb, keyring, label.as_mut_ptr(), label.len()) };
    match usize::try_from(length) {
        Ok(length) => Ok(String::from_utf8_lossy(&label[..length.min(label.len())]).trim_end_matches('\0').into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Loads a kernel module, which may be compressed (`finit_module`, flag 4).
pub(crate) fn load_module(file: &std::fs::File) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: the kernel reads an empty string and a file that is open.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 4) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has a command start with these files as descriptors 3 and following.
pub(crate) fn pass<const N: usize>(command: &mut std::process::Command, files: [std::fs::File; N]) {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::process::CommandExt as _;
    // Out of each other's way first.
    let high: Vec<OwnedFd> = files.iter().filter_map(|file| rustix::io::fcntl_dupfd_cloexec(file, 100).ok()).collect();
    // SAFETY: between fork and exec only dup2 is called, which takes no lock and no memory.
    unsafe {
        command.pre_exec(move || {
            for (at, fd) in high.iter().enumerate() {
                if libc::dup2(fd.as_raw_fd(), 3 + at as RawFd) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// Has a command start with this umask.
pub(crate) fn umask(command: &mut std::process::Command, mask: u32) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: between fork and exec only umask is called, which takes no lock and no memory.
    unsafe {
        command.pre_exec(move || {
            libc::umask(mask);
            Ok(())
        });
    }
}
