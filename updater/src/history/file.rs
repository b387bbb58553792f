//! Where the history is kept: `boots.json`, and `boots/NUMBER.log` for the newest boots.
//!
//! Releases before and after this one read and write it too. So each record is read by itself, what it has that this
//! release doesn't know is kept as it is, and one that can't be read is left out instead of taking the others with it.

use std::fs;
use std::path::{Path, PathBuf};

use keel_durable::{self as durable, Stored};
use keel_spec::api::boots::Boot;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::step::MAX_BOOTS;
use crate::failure::{Failure, Result};

/// Largest file of records.
const MAX_BYTES: u64 = 512 << 10;
/// Boots whose last lines are kept.
const MAX_LOGS: u64 = 12;
/// Longest log of a boot: last lines, and as much of the kernel's messages.
pub const MAX_LOG_BYTES: usize = 96 << 10;

/// A boot, with what other releases have written down about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What this release knows.
    #[serde(flatten)]
    pub boot: Boot,
    /// Fields of newer releases.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Record {
    /// Of a boot.
    pub fn new(boot: Boot) -> Self {
        Self { boot, rest: Map::new() }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Content {
    #[serde(default)]
    boots: Vec<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The history on disk.
#[derive(Clone, Debug)]
pub struct File {
    folder: PathBuf,
}

impl File {
    /// In a folder.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self) -> PathBuf {
        self.folder.join("boots.json")
    }

    fn log_path(&self, number: u64) -> PathBuf {
        self.folder.join("boots").join(format!("{number}.log"))
    }

    fn content(&self) -> Content {
        let stored = durable::read_json(&self.path(), MAX_BYTES).unwrap_or_else(|error| {
            log::warn!("{} can't be read: {error}", self.path().display());
            Stored::Damaged
        });
        stored.value().unwrap_or_default()
    }

    /// All records, newest first; what can't be read is left out.
    pub fn read(&self) -> Vec<Record> {
        let records = self.content().boots.into_iter().take(MAX_BOOTS);
        records.filter_map(|value| serde_json::from_value(value).ok()).collect()
    }

    /// Writes all records, durably.
    pub fn write(&self, records: &[Record]) -> Result<()> {
        let doing = format!("write {}", self.path().display());
        let boots = records.iter().map(serde_json::to_value).collect::<std::result::Result<_, _>>();
        let boots = boots.map_err(Failure::io(&doing))?;
        durable::write_json(&self.path(), &Content { boots, ..self.content() }).map_err(Failure::io(&doing))
    }

    /// Writes a boot's last lines, durably; its end, if it is too long. Logs of boots long gone are removed.
    pub fn write_log(&self, number: u64, text: &str) -> Result<()> {
        let path = self.log_path(number);
        let from = text.ceil_char_boundary(text.len().saturating_sub(MAX_LOG_BYTES));
        let newest = text.get(from..).unwrap_or_default();
        fs::create_dir_all(self.folder.join("boots"))
            .and_then(|()| durable::write(&path, newest.as_bytes()))
            .map_err(Failure::io(format!("write {}", path.display())))?;
        self.forget_logs(number);
        Ok(())
    }

    /// A boot's last lines, if they are kept.
    pub fn read_log(&self, number: u64) -> Result<Option<String>> {
        let path = self.log_path(number);
        let bytes = durable::read(&path, 2 * MAX_LOG_BYTES as u64);
        let bytes = bytes.map_err(Failure::io(format!("read {}", path.display())))?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn forget_logs(&self, newest: u64) {
        let oldest = newest.saturating_sub(MAX_LOGS - 1);
        for entry in fs::read_dir(self.folder.join("boots")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".log")).and_then(|name| name.parse().ok());
            if number.is_none_or(|number: u64| number < oldest || number > newest) {
                // Tried again with the next log.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> File {
        let folder = std::env::temp_dir().join(format!("keel-updater-history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        File::new(&folder)
    }

    fn record(number: u64) -> Record {
        let text = format!(r#"{{"number":{number},"version":"1.0.0","boot_id":"b{number}"}}"#);
        serde_json::from_str(&text).unwrap()
    }

    /// What a release after this one may leave: new fields everywhere, new words, a record of a shape of its own.
    const FROM_THE_FUTURE: &str = r#"{"format":7,"boots":[
        {"number":3,"version":"3.0.0","boot_id":"c","mood":"good","trial":{"attempt":2,"odds":0.5,"outcome":"maybe"}},
        {"number":"two"},
        {"number":1,"version":"1.0.0","boot_id":"a","end":{"cause":"meteorite","by":"sky","reason":"x","mass_kg":9}}]}"#;

    #[test]
    fn what_a_newer_release_wrote_is_read_and_its_fields_survive() {
        let file = file("future");
        fs::write(file.path(), FROM_THE_FUTURE).unwrap();
        let records = file.read();
        let numbers: Vec<u64> = records.iter().map(|record| record.boot.number).collect();
        assert_eq!(numbers, [3, 1], "one that can't be read takes no other with it");
        assert_eq!(records[1].boot.end.as_ref().unwrap().cause, keel_spec::api::boots::EndCause::Unknown);
        file.write(&records).unwrap();
        let again: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        assert_eq!((&again["format"], &again["boots"][0]["mood"]), (&7.into(), &"good".into()));
    }

    #[test]
    fn the_release_before_finds_all_that_it_needs() {
        // The fields of the first release with a history; none may go or change its kind.
        #[derive(Deserialize)]
        #[allow(dead_code)]
        struct Before {
            number: u64,
            boot_id: String,
            started_unix_s: u64,
            clock_known: bool,
            version: String,
            slot: String,
            ran_ms: u64,
            trial: Option<Map<String, Value>>,
            end: Option<Map<String, Value>>,
        }
        let file = file("before");
        file.write(&[record(1)]).unwrap();
        let content: Value = serde_json::from_slice(&fs::read(file.path()).unwrap()).unwrap();
        let before: Vec<Before> = serde_json::from_value(content["boots"].clone()).unwrap();
        assert_eq!((before[0].number, before[0].version.as_str()), (1, "1.0.0"));
    }

    #[test]
    fn a_torn_file_begins_anew_and_says_so_in_its_name() {
        let file = file("torn");
        file.write(&[record(1)]).unwrap();
        let bytes = fs::read(file.path()).unwrap();
        fs::write(file.path(), &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(file.read(), []);
        file.write(&[record(2)]).unwrap();
        assert_eq!(file.read(), [record(2)]);
        assert!(file.folder.join("boots.json.unreadable").exists());
    }

    #[test]
    fn logs_are_kept_for_the_newest_boots_and_cut_at_their_beginning() {
        let file = file("logs");
        for number in 1..=20 {
            file.write_log(number, &format!("{}{number} ends", "ü".repeat(MAX_LOG_BYTES))).unwrap();
        }
        assert_eq!(file.read_log(8).unwrap(), None);
        let text = file.read_log(9).unwrap().unwrap();
        assert!(text.len() <= MAX_LOG_BYTES && text.ends_with("ü9 ends"));
        assert_eq!(fs::read_dir(file.folder.join("boots")).unwrap().count(), MAX_LOGS as usize);
    }
}
