//! What the kernel left behind when it panicked (kernel: `Documentation/admin-guide/pstore-blk.rst`, `fs/pstore`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use keel_durable as durable;

/// Where the kernel shows records.
pub const FOLDER: &str = "/sys/fs/pstore";
/// Most records that are read.
const MAX_RECORDS: usize = 64;
/// Most bytes of one record.
const MAX_RECORD_BYTES: u64 = 64 << 10;
/// Longest reason.
const MAX_REASON_CHARS: usize = 200;

/// The kernel's last messages.
#[derive(Debug, Default)]
pub struct Records {
    paths: Vec<PathBuf>,
    /// The messages, oldest first; `None`: nothing was left behind.
    pub log: Option<String>,
}

/// The words of a panic in a kernel log, if there was one.
pub fn panic_words(log: &str) -> Option<String> {
    let words = log.lines().find_map(|line| Some(line.split_once("Kernel panic - not syncing: ")?.1))?;
    let clean = words.chars().filter(|c| !c.is_control()).take(MAX_REASON_CHARS).collect::<String>();
    Some(clean.trim().to_owned())
}

/// Where a record belongs: its first line is `Panic#2 Part3`, and part 1 is the end of the log. What has no such line
/// comes first.
fn place(record: &str) -> (u32, std::cmp::Reverse<u32>) {
    let parsed = || {
        let (dump, part) = record.lines().next()?.split_once(" Part")?;
        Some((dump.split_once('#')?.1.trim().parse().ok()?, std::cmp::Reverse(part.trim().parse().ok()?)))
    };
    parsed().unwrap_or_default()
}

/// Reads all records.
pub fn read(folder: &Path) -> io::Result<Records> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Records::default()),
        other => other?,
    };
    let mut paths: Vec<_> = entries.take(MAX_RECORDS).flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let texts = paths.iter().filter_map(|path| durable::read(path, MAX_RECORD_BYTES).ok().flatten());
    let mut texts: Vec<String> = texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
    texts.sort_by_key(|text| place(text));
    let log = (!texts.is_empty()).then(|| texts.join("\n"));
    Ok(Records { paths, log })
}

impl Records {
    /// Removes them, so that the firmware's store stays empty. To be called when what they say is on the disk.
    pub fn remove(&self) -> io::Result<()> {
        self.paths.iter().try_for_each(fs::remove_file)
    }
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
    fn records_are_put_in_order_and_stay_until_they_are_removed() {
        let folder = std::env::temp_dir().join(format!("keel-updater-pstore-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let parts = ["Panic#2 Part1\nKernel panic - not syncing: rot\n", "Panic#2 Part2\nb\n", "Oops#1 Part1\na\n"];
        for (index, text) in parts.iter().enumerate() {
            fs::write(folder.join(format!("dmesg-efi_pstore-{index}")), text).unwrap();
        }
        let records = read(&folder).unwrap();
        let log = records.log.as_deref().unwrap();
        assert_eq!(log, [parts[2], parts[1], parts[0]].join("\n"));
        assert_eq!(panic_words(log).as_deref(), Some("rot"));
        assert!(read(&folder).unwrap().log.is_some());
        records.remove().unwrap();
        assert_eq!(read(&folder).unwrap().log, None);
        fs::remove_dir_all(folder).unwrap();
    }
}
