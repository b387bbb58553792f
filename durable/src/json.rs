//! Values kept as JSON.

use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What a file of state held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored<T> {
    /// This.
    Value(T),
    /// There was no such file.
    Absent,
    /// Something that can't be understood. It has been moved aside, to the name with `.unreadable` appended.
    Damaged,
}

impl<T> Stored<T> {
    /// The value, if there was one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Damaged => None,
        }
    }
}

/// Writes a value as [`crate::write`] does.
pub fn write_json<T: Serialize + ?Sized>(path: &Path, value: &T) -> io::Result<()> {
    crate::write(path, &serde_json::to_vec(value)?)
}

/// Reads what [`write_json`] wrote. What is torn or too long is moved aside with a line in the log, so that its reader
/// starts afresh; an error is a disk that can't be read.
pub fn read_json<T: DeserializeOwned>(path: &Path, max_bytes: u64) -> io::Result<Stored<T>> {
    let reason = match crate::read(path, max_bytes) {
        Ok(None) => return Ok(Stored::Absent),
        Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
            Ok(value) => return Ok(Stored::Value(value)),
            Err(error) => error.to_string(),
        },
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => error.to_string(),
        Err(error) => return Err(error),
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".unreadable");
    let aside = Path::new(&aside);
    log::error!("{}: not usable, moved to {}: {reason}", path.display(), aside.display());
    std::fs::rename(path, aside)?;
    Ok(Stored::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_file_is_moved_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        assert_eq!(read_json::<Vec<i32>>(&path, 100).unwrap(), Stored::Absent);
        write_json(&path, &[1, 2, 3]).unwrap();
        assert_eq!(read_json(&path, 100).unwrap(), Stored::Value(vec![1, 2, 3]));
        std::fs::write(&path, b"[1, 2").unwrap();
        assert_eq!(read_json::<Vec<i32>>(&path, 100).unwrap(), Stored::Damaged);
        assert!(!path.exists() && folder.path().join("state.json.unreadable").exists());
        write_json(&path, &vec![1; 100]).unwrap();
        assert_eq!(read_json::<Vec<i32>>(&path, 100).unwrap(), Stored::Damaged, "too long");
    }
}
