//! What the kernel left behind when it panicked (kernel: `Documentation/admin-guide/pstore-blk.rst`, `fs/pstore`).

use std::fs;
use std::io;
use std::path::Path;

use keel_durable as durable;

/// Where the kernel shows records.
pub const FOLDER: &str = "/sys/fs/pstore";
/// Most records that are read.
const MAX_RECORDS: usize = 64;
/// Most bytes of one record.
const MAX_RECORD_BYTES: u64 = 64 << 10;
/// Longest reason.
const MAX_REASON_CHARS: usize = 200;

/// The words of a panic in a kernel log, if there was one.
pub fn panic_words(log: &str) -> Option<String> {
    let words = log.lines().find_map(|line| Some(line.split_once("Kernel panic - not syncing: ")?.1))?;
    let clean = words.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect::<String>();
    Some(clean.trim().to_owned())
}

/// Reads all records; copies them into a file of `keep`, then removes them, so that the firmware's store stays empty.
/// Returns the words of the panic, if there was one.
pub fn collect(folder: &Path, keep: &Path) -> io::Result<Option<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut paths: Vec<_> = entries.take(MAX_RECORDS).flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mut log = String::new();
    for path in &paths {
        let Ok(Some(bytes)) = durable::read(path, MAX_RECORD_BYTES) else { continue };
        log.push_str(&String::from_utf8_lossy(&bytes));
        log.push('\n');
    }
    if paths.is_empty() {
        return Ok(None);
    }
    durable::write(&keep.join("last-panic.txt"), log.as_bytes())?;
    for path in &paths {
        fs::remove_file(path)?;
    }
    Ok(panic_words(&log))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_panic_are_found() {
        let log = "Panic#1 Part1\n<0>[    1.5] Kernel panic - not syncing: Attempted to kill init! exitcode=0x0\n<4>x";
        assert_eq!(panic_words(log).unwrap(), "Attempted to kill init! exitcode=0x0");
        assert_eq!(panic_words("nothing"), None);
    }

    #[test]
    fn records_are_copied_then_removed() {
        let base = std::env::temp_dir().join(format!("keel-updater-pstore-{}", std::process::id()));
        let (records, keep) = (base.join("records"), base.join("keep"));
        fs::create_dir_all(&records).unwrap();
        fs::create_dir_all(&keep).unwrap();
        fs::write(records.join("dmesg-efi_pstore-1"), "Kernel panic - not syncing: rot\n").unwrap();
        assert_eq!(collect(&records, &keep).unwrap().as_deref(), Some("rot"));
        assert_eq!(collect(&records, &keep).unwrap(), None);
        assert!(keep.join("last-panic.txt").exists());
        fs::remove_dir_all(base).unwrap();
    }
}
