//! Files that survive a loss of power: written whole or not at all, and read without ever being fatal.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Doing, Error};

/// Longest file that is read back.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Writes `value` as JSON: temporary file, fsync, rename, fsync of the folder.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let save = || -> io::Result<()> {
        let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let temporary = path.with_extension("new");
        let bytes = serde_json::to_vec(value)?;
        let mut file = File::create(&temporary)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder(folder)
    };
    save().doing(|| format!("writing {}", path.display()))
}

/// Makes the names in `folder` durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Reads what [`write`] wrote. A file that can't be understood is moved aside with a line in the log, and `None`
/// comes back as for a file that isn't there.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let load = || -> io::Result<T> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    match load() {
        Ok(value) => Some(value),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let aside = path.with_extension("unreadable");
            ::log::error!("{}: not usable, moved to {}: {error}", path.display(), aside.display());
            if let Err(error) = fs::rename(path, &aside) {
                ::log::error!("{}: cannot be moved aside: {error}", path.display());
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_file_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        write(&path, &vec![1, 2, 3]).unwrap();
        assert_eq!(read::<Vec<i32>>(&path), Some(vec![1, 2, 3]));
        fs::write(&path, b"[1, 2").unwrap();
        assert_eq!(read::<Vec<i32>>(&path), None);
        assert!(!path.exists() && folder.path().join("state.unreadable").exists());
    }
}
