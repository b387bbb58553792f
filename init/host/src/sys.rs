//! The ioctls and system calls that have no safe wrapper.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `_IO(0x12, 105)` of linux/blkpg.h.
const BLKPG: libc::c_ulong = 0x1269;
/// `BLKPG_RESIZE_PARTITION` of linux/blkpg.h.
const BLKPG_RESIZE_PARTITION: libc::c_int = 3;
/// `_IOW('f', 16, __u64)` of fs/ext4/ext4.h.
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start_bytes: i64,
    length_bytes: i64,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgArgument {
    operation: libc::c_int,
    flags: libc::c_int,
    data_bytes: libc::c_int,
    data: *mut BlkpgPartition,
}

/// Tells the kernel the new size of a partition of `disk` (the whole-disk device), even while it is mounted.
pub(crate) fn resize_partition(
    disk: BorrowedFd<'_>,
    number: u32,
    start_bytes: u64,
    length_bytes: u64,
) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let mut partition = BlkpgPartition {
        start_bytes: i64::try_from(start_bytes).map_err(out_of_range)?,
        length_bytes: i64::try_from(length_bytes).map_err(out_of_range)?,
        number: i32::try_from(number).map_err(out_of_range)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation: BLKPG_RESIZE_PARTITION,
        flags: 0,
        data_bytes: size_of::<BlkpgPartition>() as libc::c_int,
        data: &mut partition,
    };
    // SAFETY: BLKPG reads one blkpg_ioctl_arg and the blkpg_partition it points to; both live until the call returns
    // and are laid out as the kernel's.
    check(unsafe { libc::ioctl(disk.as_raw_fd(), BLKPG, &argument) })
}

/// Grows the mounted ext4 that `folder` lies on to this many of its blocks. No effect when it has as many already.
pub(crate) fn resize_ext4(folder: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64, which lives until the call returns.
    check(unsafe { libc::ioctl(folder.as_raw_fd(), EXT4_IOC_RESIZE_FS, &blocks) })
}

/// Slews the clock by this many microseconds (at most half a second either way) and tells the kernel that the clock
/// is synchronised, with this estimate of the error, so that it keeps the hardware clock set (adjtimex(2)).
pub(crate) fn slew_clock(offset_us: i64, error_us: i64) -> io::Result<()> {
    // SAFETY: timex is plain numbers; zero is a valid value of each.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    timex.modes = libc::ADJ_OFFSET | libc::ADJ_STATUS | libc::ADJ_ESTERROR | libc::ADJ_MAXERROR | libc::ADJ_MICRO;
    timex.status = libc::STA_PLL;
    timex.offset = offset_us;
    timex.esterror = error_us;
    timex.maxerror = error_us;
    // SAFETY: adjtimex reads and writes one timex, which lives until the call returns.
    check(unsafe { libc::adjtimex(&mut timex) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
