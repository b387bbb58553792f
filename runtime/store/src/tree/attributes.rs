//! What a file has beside its content.

use crate::layer::head::Head;

/// Longest value of an extended attribute that its length field holds (XATTR_SIZE_MAX is one more).
const MAX_VALUE_BYTES: usize = u16::MAX as usize;
/// Longest name of an extended attribute (XATTR_NAME_MAX).
const MAX_NAME_BYTES: usize = 255;

/// What an extended attribute takes in memory beside its bytes.
const XATTR_BYTES: usize = 64;

/// Name and value of an extended attribute.
pub type Xattr = (Box<[u8]>, Box<[u8]>);

/// Owner, mode, times, extended attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with set-user-ID and the like.
    pub mode: u16,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Changed last, seconds since 1970.
    pub mtime_s: i64,
    /// Nanoseconds beyond.
    pub mtime_ns: u32,
    /// Extended attributes, sorted by name. Most files have none.
    pub xattrs: Vec<Xattr>,
}

impl Attributes {
    /// What an entry of an archive says.
    pub fn of(head: &Head) -> Result<Self, String> {
        let mut xattrs = Vec::new();
        for (name, value) in head.xattrs.iter().filter(|(name, _)| is_wanted(name)) {
            if !is_valid(name, value) {
                return Err(format!("attribute {:?} can't be set", String::from_utf8_lossy(name)));
            }
            xattrs.push((name.as_slice().into(), value.as_slice().into()));
        }
        xattrs.sort();
        Ok(Self {
            mode: u16::try_from(head.mode & 0o7777).unwrap_or_default(),
            uid: head.uid,
            gid: head.gid,
            mtime_s: head.mtime_s,
            mtime_ns: head.mtime_ns,
            xattrs,
        })
    }

    /// Bytes that they take in memory beside the node.
    pub(super) fn held_bytes(&self) -> usize {
        self.xattrs.iter().map(|(name, value)| XATTR_BYTES + name.len() + value.len()).sum()
    }

    /// Those of a folder that no layer has an entry of.
    pub fn of_implied_folder() -> Self {
        Self { mode: 0o755, ..Self::default() }
    }
}

/// Attributes that mean something in a container. Others must not come from an archive: `trusted.overlay.*` would
/// let it redirect the overlay, labels of security modules are the host's.
fn is_wanted(name: &[u8]) -> bool {
    !name.contains(&0)
        && (name.starts_with(b"user.")
            || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default"))
}

/// Whether the kernel would have taken it (linux/capability.h, linux/posix_acl_xattr.h).
fn is_valid(name: &[u8], value: &[u8]) -> bool {
    let in_bounds = name.len() <= MAX_NAME_BYTES && value.len() <= MAX_VALUE_BYTES;
    in_bounds
        && match name {
            b"security.capability" => {
                matches!((value.get(3), value.len()), (Some(1), 12) | (Some(2), 20) | (Some(3), 24))
            }
            b"system.posix_acl_access" | b"system.posix_acl_default" => {
                value.get(..4) == Some(&[2, 0, 0, 0]) && value.len() % 8 == 4
            }
            _ => name.len() > b"user.".len(),
        }
}
