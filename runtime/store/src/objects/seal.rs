//! fs-verity (kernel: Documentation/filesystems/fsverity.rst), and file systems without it. There, files are kept under
//! the same names, but nobody notices when they change.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use crate::digest::ObjectId;
use crate::error::Error;
use crate::sys;

/// Whether the file system of a store seals files: found out when it is asked for first.
#[derive(Debug, Default)]
pub struct Seals(Mutex<Option<bool>>);

impl Seals {
    /// Tries it on a file in a folder.
    pub fn are_possible(&self, folder: &Path) -> Result<bool, Error> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *known {
            return Ok(known);
        }
        let probe = folder.join("probe");
        let possible = try_on(&probe).map_err(Error::io("trying fs-verity on", &probe))?;
        if !possible {
            log::warn!(
                "the file system of {} has no fs-verity: the files of images aren't checked when they are read",
                folder.display()
            );
        }
        *known = Some(possible);
        Ok(possible)
    }

    /// Seals a file that nobody has open for writing, and sees that the kernel knows it by the digest that we do.
    pub fn set(file: &File, id: &ObjectId) -> io::Result<()> {
        sys::enable_verity(file.as_fd())?;
        if Self::hold(file, id)? {
            return Ok(());
        }
        Err(io::Error::other("the kernel read back something else than was written"))
    }

    /// Whether the kernel checks a file against this digest.
    pub fn hold(file: &File, id: &ObjectId) -> io::Result<bool> {
        Ok(sys::measure_verity(file.as_fd())? == Some(id.bytes()))
    }
}

fn try_on(path: &Path) -> io::Result<bool> {
    // One that a crash left may be sealed already.
    let remove = || match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    remove()?;
    std::fs::write(path, "x")?;
    let sealed = sys::enable_verity(File::open(path)?.as_fd());
    remove()?;
    match sealed {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)) => Ok(false),
        Err(error) => Err(error),
    }
}
