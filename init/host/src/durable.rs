//! Files that survive a power failure: written whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces the file at `path`: temporary file, fsync, rename, fsync of the folder. Makes the folder if it isn't there.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    fs::create_dir_all(folder)?;
    replace(path, content, true)?;
    File::open(folder)?.sync_all()
}

/// Replaces a file that needn't outlive the boot: readers see the old content or the new one.
pub fn write_volatile(path: &Path, content: &[u8]) -> io::Result<()> {
    replace(path, content, false)
}

fn replace(path: &Path, content: &[u8], sync: bool) -> io::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let mut file = File::create(&fresh)?;
    file.write_all(content)?;
    if sync {
        file.sync_all()?;
    }
    fs::rename(&fresh, path)
}
