//! A dm-verity device, set up by device-mapper's own ioctls (kernel: `include/uapi/linux/dm-ioctl.h`).

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use keel_spec::verity::{BLOCK_BYTES, RootHash, dm_table};

use crate::disks::{self, RootPartitions};
use crate::sys;

const CONTROL: &str = "/dev/mapper/control";
const NAME: &str = "root";
const DEV_CREATE: u8 = 3;
const DEV_SUSPEND: u8 = 6;
const TABLE_LOAD: u8 = 9;
const READ_ONLY: u32 = 1;
/// Of `struct dm_ioctl`: version, data_size, data_start, target_count, open_count, flags, event_nr, padding, dev,
/// name\[128\], uuid\[129\], data\[7\].
const HEADER_BYTES: usize = 312;
const TARGET_BYTES: usize = 40;

/// What a corrupt block leads to: a panic, not a plain restart. Both restart the machine at once, but a panic's
/// message outlives it in the firmware's store (efi-pstore), so that the next boot can read *why* it had to happen.
const ON_CORRUPTION: &str = "panic_on_corruption";

/// KiB that the kernel reads around a page that a program needs, in place of 128: that page alone. What it is packed
/// with comes along anyway (the root's unit of compression is 16 KiB); each block that is read is also hashed, and a boot
/// needs pages here and there.
const READ_AHEAD_KIB: &str = "4";

/// Sets the verified root device up and returns its path.
pub fn set_up(root: &RootPartitions, blocks: u64, root_hash: &RootHash) -> io::Result<PathBuf> {
    let control = File::options().read(true).write(true).open(CONTROL)?;
    let parameters = dm_table(
        &disks::device_number(&root.data)?,
        &disks::device_number(&root.tree)?,
        blocks,
        root_hash,
        &[ON_CORRUPTION],
    );
    let sectors = blocks.checked_mul(BLOCK_BYTES as u64 / 512).ok_or(io::ErrorKind::InvalidInput)?;
    let mut created = header(0, 0);
    sys::device_mapper(&control, DEV_CREATE, &mut created)?;
    sys::device_mapper(&control, TABLE_LOAD, &mut table(sectors, &parameters))?;
    // "Suspend" without the suspend flag resumes: the loaded table becomes the live one.
    sys::device_mapper(&control, DEV_SUSPEND, &mut header(READ_ONLY, 0))?;
    let number = created.get(40..48).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
    let name = format!("dm-{}", rustix::fs::minor(number));
    // Only costs time if it can't be set.
    let _ = std::fs::write(format!("/sys/block/{name}/queue/read_ahead_kb"), READ_AHEAD_KIB);
    Ok(Path::new("/dev").join(name))
}

fn header(flags: u32, targets: u32) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES);
    for field in [4, 0, 0, 0, HEADER_BYTES as u32, targets, 0, flags, 0, 0] {
        // Fields as they lie in memory; data_size (the fourth) is set when the ioctl is made.
        bytes.extend(u32::to_ne_bytes(field));
    }
    bytes.resize(48, 0);
    bytes.extend(NAME.as_bytes());
    bytes.resize(HEADER_BYTES, 0);
    bytes
}

fn table(sectors: u64, parameters: &str) -> Vec<u8> {
    let mut bytes = header(READ_ONLY, 1);
    bytes.extend(0u64.to_ne_bytes());
    bytes.extend(sectors.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(b"verity");
    bytes.resize(HEADER_BYTES + TARGET_BYTES, 0);
    bytes.extend(parameters.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_laid_out_as_the_kernel_reads_it() {
        let bytes = table(64, "1 8:1");
        assert_eq!(bytes.len(), 312 + 40 + 8);
        assert_eq!(&bytes[..4], 4u32.to_ne_bytes());
        assert_eq!(&bytes[16..20], 312u32.to_ne_bytes(), "data_start");
        assert_eq!(&bytes[20..24], 1u32.to_ne_bytes(), "target_count");
        assert_eq!(&bytes[28..32], READ_ONLY.to_ne_bytes(), "flags");
        assert_eq!(&bytes[48..53], b"root\0");
        assert_eq!(&bytes[320..328], 64u64.to_ne_bytes(), "length");
        assert_eq!(&bytes[336..343], b"verity\0");
        assert_eq!(&bytes[352..358], b"1 8:1\0");
    }
}
