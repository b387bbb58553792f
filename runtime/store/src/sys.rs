//! The system calls that have no safe wrapper.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

#[cfg(target_arch = "x86_64")]
use crate::verity::lanes;
use crate::verity::{BLOCK_BYTES, HASH_BYTES};

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
        let parent = std::process::id();
        // SAFETY: like fork(2): no memory is shared and no stack given. The child makes system calls alone and never
        // returns, so locks that other threads held don't matter.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        if pid == 0 {
            // SAFETY: see above; no call takes a pointer.
            unsafe { idle(parent) }
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

/// A child's whole life.
///
/// # Safety
/// Only in a process that has just been cloned.
unsafe fn idle(parent: u32) -> ! {
    // SAFETY: plain numbers.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // A parent that was killed before that sends nothing any more.
        if libc::getppid().cast_unsigned() != parent {
            libc::_exit(1);
        }
        // Or it would hold the store's lock and other copies for as long as it is there.
        libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
        loop {
            libc::pause();
        }
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

/// Fewer blocks than this are hashed sooner one after the other.
const MIN_LANES: usize = 3;

/// Hashes of up to eight blocks, the rest of the eight being of no meaning; `None` where others are quicker at it: with
/// instructions for SHA-256, or without AVX2.
pub fn hash_side_by_side(blocks: &[[u8; BLOCK_BYTES]]) -> Option<[[u8; HASH_BYTES]; 8]> {
    #[cfg(target_arch = "x86_64")]
    if !std::arch::is_x86_feature_detected!("sha") {
        return hash_in_lanes(blocks);
    }
    None
}

/// The same, whether it is quicker or not.
#[cfg(target_arch = "x86_64")]
pub fn hash_in_lanes(blocks: &[[u8; BLOCK_BYTES]]) -> Option<[[u8; HASH_BYTES]; 8]> {
    let first = blocks.first().filter(|_| blocks.len() >= MIN_LANES)?;
    if !std::arch::is_x86_feature_detected!("avx2") {
        return None;
    }
    let filled = std::array::from_fn(|lane| blocks.get(lane).unwrap_or(first));
    // SAFETY: the function is a safe one but for the instructions that it uses, and the processor has them, as has just
    // been seen.
    Some(unsafe { lanes::hash(filled) })
}

/// `FS_IOC_ENABLE_VERITY` and `FS_IOC_MEASURE_VERITY` (linux/fsverity.h).
const ENABLE_VERITY: libc::Ioctl = 0x4080_6685;
const MEASURE_VERITY: libc::Ioctl = 0xc004_6686;
/// `FS_VERITY_HASH_ALG_SHA256`
const SHA256: u16 = 1;

/// `struct fsverity_enable_arg`
#[repr(C)]
struct EnableVerity {
    version: u32,
    hash_algorithm: u32,
    block_bytes: u32,
    salt_bytes: u32,
    salt: u64,
    signature_bytes: u32,
    reserved: u32,
    signature: u64,
    more: [u64; 11],
}

/// `struct fsverity_digest` with room for SHA-256.
#[repr(C)]
struct MeasuredVerity {
    algorithm: u16,
    length: u16,
    digest: [u8; 32],
}

/// Has the kernel check each block of a file whenever it is read, and let nobody write it any more (kernel:
/// Documentation/filesystems/fsverity.rst). The file must be open for reading only, and nowhere for writing.
pub fn enable_verity(file: BorrowedFd<'_>) -> io::Result<()> {
    let argument = EnableVerity {
        version: 1,
        hash_algorithm: SHA256.into(),
        block_bytes: 4096,
        salt_bytes: 0,
        salt: 0,
        signature_bytes: 0,
        reserved: 0,
        signature: 0,
        more: [0; 11],
    };
    // SAFETY: the argument is a whole `struct fsverity_enable_arg`, which the kernel only reads and only in this call;
    // salt and signature have length 0, so their null addresses aren't read.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), ENABLE_VERITY, &raw const argument) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The digest that the kernel checks a file against; `None`: it checks nothing.
pub fn measure_verity(file: BorrowedFd<'_>) -> io::Result<Option<[u8; 32]>> {
    let mut measured = MeasuredVerity { algorithm: 0, length: 32, digest: [0; 32] };
    // SAFETY: the argument is a `struct fsverity_digest` with room for the 32 bytes that its length promises; the kernel
    // writes no more than that, or fails with EOVERFLOW.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), MEASURE_VERITY, &raw mut measured) };
    if result == 0 {
        return Ok((measured.algorithm == SHA256 && measured.length == 32).then_some(measured.digest));
    }
    match io::Error::last_os_error() {
        error if matches!(error.raw_os_error(), Some(libc::ENODATA | libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(None),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Idle;

    /// A daemon that is killed beside one would leave its locks to it.
    #[test]
    fn an_idle_process_holds_no_descriptors() {
        let kept = std::fs::File::open("/dev/null").unwrap();
        let idle = Idle::in_user_namespace().unwrap();
        let folder = format!("/proc/{}/fd", idle.pid());
        let begun = Instant::now();
        while std::fs::read_dir(&folder).unwrap().count() > 0 {
            assert!(begun.elapsed() < Duration::from_secs(10), "it keeps what its parent had open");
            std::thread::yield_now();
        }
        drop(kept);
    }
}
