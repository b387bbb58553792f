//! Extended attributes of files that mean something inside a container: capabilities, and users' own.
//!
//! In an archive they are pax records, `SCHILY.xattr.NAME`, as all layers have them. Capabilities that a container's
//! root gave a file name that root by the host's number (revision 3); an archive has them without (revision 2): they
//! hold good for whoever is root there (kernel: `include/uapi/linux/capability.h`).

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
use rustix::io::Errno;

use super::root::Root;

/// Before an attribute's name in a pax header.
const PAX_PREFIX: &[u8] = b"SCHILY.xattr.";
/// The attribute that holds a file's capabilities.
const CAPABILITY: &[u8] = b"security.capability";
/// Most bytes of a list of names, and of a value (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const MAX_BYTES: usize = 65_536;
/// The revision, in the first number's upper byte; its lowest bit says whether they are in effect at once.
const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
/// Bytes of revision 2: the first number, and two pairs of sets.
const REVISION_2_BYTES: usize = 20;

/// Name and value.
pub type Attribute = (Vec<u8>, Vec<u8>);

/// What a file has, as archives have it.
pub fn read(root: &Root, file: impl AsFd) -> io::Result<Vec<Attribute>> {
    let mut buffer = vec![0; MAX_BYTES];
    let listed = match flistxattr(&file, &mut buffer[..]) {
        Ok(length) => buffer.get(..length).unwrap_or_default().to_vec(),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    };
    let mut attributes = Vec::new();
    for name in listed.split(|byte| *byte == 0).filter(|name| is_wanted(name)) {
        let length = match fgetxattr(&file, name, &mut buffer[..]) {
            Ok(length) => length,
            // It has gone since.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error.into()),
        };
        let value = buffer.get(..length).unwrap_or_default();
        let value = if name == CAPABILITY { without_root(value, root.base()) } else { Some(value.to_vec()) };
        attributes.extend(value.map(|value| (name.to_vec(), value)));
    }
    attributes.sort();
    Ok(attributes)
}

/// Gives a file an attribute that an archive has, unless it means nothing inside.
pub fn write(root: &Root, file: impl AsFd, name: &[u8], value: &[u8]) -> io::Result<()> {
    if !is_wanted(name) {
        return Ok(());
    }
    let for_root = (name == CAPABILITY).then(|| with_root(value, root.base())).flatten();
    match fsetxattr(file, name, for_root.as_deref().unwrap_or(value), XattrFlags::empty()) {
        // A file system without them keeps the file all the same.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// As the content of a pax header: `length key=value\n`, where the length counts its own digits.
pub fn pax_records(attributes: &[Attribute]) -> Vec<u8> {
    let mut records = Vec::new();
    for (name, value) in attributes {
        let rest = [b" ".as_slice(), PAX_PREFIX, name, b"=", value, b"\n"].concat();
        let mut length = rest.len();
        while length != rest.len() + length.to_string().len() {
            length = rest.len() + length.to_string().len();
        }
        records.extend_from_slice(length.to_string().as_bytes());
        records.extend_from_slice(&rest);
    }
    records
}

fn is_wanted(name: &[u8]) -> bool {
    name == CAPABILITY || name.starts_with(b"user.")
}

/// Capabilities without the root that they hold good for. `None`: that is another one, so they mean nothing here.
fn without_root(value: &[u8], base: u32) -> Option<Vec<u8>> {
    let (head, sets) = split(value)?;
    match head & REVISION_MASK {
        REVISION_2 => Some(value.to_vec()),
        REVISION_3 => {
            let (sets, root) = sets.split_at_checked(REVISION_2_BYTES - 4)?;
            let root = u32::from_le_bytes(root.try_into().ok()?);
            let head = head & !REVISION_MASK | REVISION_2;
            (root == base).then(|| [&head.to_le_bytes(), sets].concat())
        }
        _ => None,
    }
}

/// Capabilities for the container's root; as they are where that is the host's, and if they are none of revision 2.
fn with_root(value: &[u8], base: u32) -> Option<Vec<u8>> {
    let (head, sets) = split(value)?;
    let wanted = base != 0 && head & REVISION_MASK == REVISION_2 && value.len() == REVISION_2_BYTES;
    let head = head & !REVISION_MASK | REVISION_3;
    wanted.then(|| [&head.to_le_bytes(), sets, &base.to_le_bytes()].concat())
}

fn split(value: &[u8]) -> Option<(u32, &[u8])> {
    let (head, sets) = value.split_first_chunk()?;
    Some((u32::from_le_bytes(*head), sets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_name_no_root_in_an_archive_and_the_containers_on_the_host() {
        let sets = [7u8; 16];
        let plain = [&0x0200_0001u32.to_le_bytes()[..], &sets].concat();
        let hosts = [&0x0300_0001u32.to_le_bytes()[..], &sets, &100_000u32.to_le_bytes()].concat();
        assert_eq!(with_root(&plain, 100_000).unwrap(), hosts);
        assert_eq!(without_root(&hosts, 100_000).unwrap(), plain);
        assert_eq!(without_root(&hosts, 200_000), None);
        assert_eq!((with_root(&plain, 0), with_root(&plain[..9], 1)), (None, None));
        for hostile in [&b""[..], b"x", &hosts[..21], &[0; 24]] {
            assert_eq!(without_root(hostile, 0), None, "{hostile:?}");
        }
    }

    #[test]
    fn a_record_counts_its_own_digits() {
        let records = pax_records(&[(b"user.a".to_vec(), vec![b'v'; 74])]);
        // 1 + 13 + 6 + 1 + 74 + 1 bytes, and two digits.
        assert!(records.starts_with(b"98 SCHILY.xattr.user.a=v"), "{}", String::from_utf8_lossy(&records));
        let length: usize =
            String::from_utf8_lossy(records.split(|byte| *byte == b' ').next().unwrap()).parse().unwrap();
        assert_eq!(length, records.len());
    }
}
