//! The system call that no crate wraps: `kexec_file_load`.
//!
//! The only module that may contain `unsafe`.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Has the kernel take another one with its initrd and command line, to be started by `reboot(2)` with
/// `LINUX_REBOOT_CMD_KEXEC` (kexec_file_load(2)). Both files have to be regular ones that nobody has open for writing.
///
/// # Errors
///
/// `EPERM`, `ENOKEY`, `EKEYREJECTED`, `ENODATA`: the kernel's lockdown or Secure Boot wants a signature that it trusts.
pub fn kexec_file_load(kernel: BorrowedFd<'_>, initrd: BorrowedFd<'_>, cmdline: &CStr) -> io::Result<()> {
    let bytes = cmdline.to_bytes_with_nul();
    let (kernel, initrd) = (libc::c_long::from(kernel.as_raw_fd()), libc::c_long::from(initrd.as_raw_fd()));
    // SAFETY: both descriptors are open for as long as they are borrowed, the kernel reads `bytes.len()` bytes of
    // `bytes`, the last of which is zero, as it asks; nothing of this is kept after the call.
    let done = unsafe { libc::syscall(libc::SYS_kexec_file_load, kernel, initrd, bytes.len(), bytes.as_ptr(), 0u64) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
