//! Bytes: temporary file, fsync, rename, fsync of the folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// State is its owner's alone.
const PRIVATE: u32 = 0o600;
/// What other programs read.
const PUBLIC: u32 = 0o644;

/// Replaces a file so that after a power cut there is the old content or the new, and nothing else. The folder has to
/// be there; the file is readable for its owner only.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, PRIVATE, true)?;
    sync_parent(path)
}

/// Replaces a file that needn't outlive the boot: readers see the old content or the new.
pub fn write_volatile(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, PUBLIC, false)
}

/// Removes a file durably. Not an error if it isn't there.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.and_then(|()| sync_parent(path)),
    }
}

/// Reads a file; `None` if it isn't there, an error if it is longer than `max_bytes`.
pub fn read(path: &Path, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // With room for all of it and a byte more, so that it takes one read, and one that finds the end.
    let size = file.metadata()?.len().min(max_bytes);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {max_bytes} bytes")));
    }
    Ok(Some(bytes))
}

/// Makes names that were made, renamed or removed in a folder durable.
pub fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => sync_folder(Path::new(".")),
        Some(folder) => sync_folder(folder),
        None => Ok(()),
    }
}

fn replace(path: &Path, bytes: &[u8], mode: u32, sync: bool) -> io::Result<()> {
    // Beside the target: a rename doesn't cross file systems.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        if sync { file.sync_all() } else { Ok(()) }
    };
    write().and_then(|()| fs::rename(&temporary, path)).inspect_err(|_| {
        // On a full disk the half-written file must not keep the space; the first error is the one to report.
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_leaves_the_old_content_and_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        write(&path, b"old").unwrap();
        fs::create_dir(folder.path().join("taken")).unwrap();
        fs::write(folder.path().join("taken/x"), b"").unwrap();
        assert!(write(&folder.path().join("taken"), b"new").is_err(), "a folder isn't replaced");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["state", "taken"]);
    }

    #[test]
    fn reading_stops_at_its_cap() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(read(&path, 3).unwrap(), None);
        write(&path, b"1234").unwrap();
        assert_eq!(read(&path, 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(&path, 4).unwrap().as_deref(), Some(&b"1234"[..]));
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(read(&path, 4).unwrap(), None);
    }
}
