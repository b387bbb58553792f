//! Durable writes: temporary file, fsync, rename, fsync of the folder.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use crate::error::Error;

/// Writes a file so that after a crash there is either the old content or the new.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary).map_err(Error::io("making", &temporary))?;
    file.write_all(bytes).map_err(Error::io("writing", &temporary))?;
    file.sync_all().map_err(Error::io("syncing", &temporary))?;
    std::fs::rename(&temporary, path).map_err(Error::io("renaming a new file to", path))?;
    match path.parent() {
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

/// Makes names that were made or removed in a folder durable.
pub fn sync_folder(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(Error::io("syncing folder", path))
}

/// Reads a file up to a cap.
pub fn read(path: &Path, max_bytes: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, format!("longer than {max_bytes} bytes")));
    }
    Ok(bytes)
}
