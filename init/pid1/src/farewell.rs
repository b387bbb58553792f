//! What PID 1 leaves for the next boot when it ends this one in order, and the last lines of all logs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use keel_spec::control::Shutdown;
use keel_spec::last_words::{LastWords, MAX_LOG_BYTES};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::clock;
use crate::logs::reopen;
use crate::machine::Machine;

/// Most bytes of one log.
const MAX_TAIL_BYTES: u64 = 12 << 10;
/// Bytes of the time at the beginning of each line, `2026-11-22T01:02:03.456Z`.
const STAMP_BYTES: usize = 24;

/// Who asked for the end of this boot, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The service; `init`: PID 1 itself.
    pub by: String,
    /// In words.
    pub reason: String,
    /// Whether it is because nobody declared the release on trial good in time.
    pub trial_expired: bool,
}

impl Asked {
    /// By PID 1 itself.
    pub fn by_init(reason: &str) -> Self {
        Self { by: "init".into(), reason: reason.into(), trial_expired: false }
    }
}

/// What is to be left of this boot.
pub fn words(machine: &Machine, how: Shutdown) -> LastWords {
    let asked = machine.asked.clone().unwrap_or_default();
    LastWords {
        boot_id: machine.boot_id.clone(),
        how: how.name().to_owned(),
        by: asked.by,
        reason: asked.reason,
        trial_expired: asked.trial_expired,
        ran_ms: clock::boot_ms(),
        log: last_lines(machine),
    }
}

/// Leaves it. The caller syncs the file system, which makes the name durable too.
pub fn leave(path: &Path, words: &LastWords) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(words.render().as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

/// The last lines of all logs, by time.
pub fn last_lines(machine: &Machine) -> String {
    let tails: Vec<(&str, String)> = machine.logs().map(|(name, log)| (name, log.tail(MAX_TAIL_BYTES))).collect();
    merge(&tails, MAX_LOG_BYTES)
}

/// The same as a file that can only be read.
pub fn last_lines_file(machine: &Machine) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("last lines", MemfdFlags::CLOEXEC)?);
    file.write_all(last_lines(machine).as_bytes())?;
    Ok(reopen(&file)?)
}

/// Lines of several logs by time, each with its log's name behind the time; the newest, if there are too many. What
/// doesn't begin with a time is the rest of a line that was cut.
fn merge(tails: &[(&str, String)], max_bytes: usize) -> String {
    let mut lines: Vec<(&str, &str, &str)> = Vec::new();
    for (name, text) in tails {
        let stamped = text.lines().filter_map(|line| line.split_once(' '));
        let whole = stamped.filter(|(stamp, _)| stamp.len() == STAMP_BYTES && stamp.ends_with('Z'));
        lines.extend(whole.map(|(stamp, rest)| (stamp, *name, rest)));
    }
    // Stable: lines of one log stay in their order.
    lines.sort_by_key(|(stamp, _, _)| *stamp);
    let mut bytes = 0_usize;
    let fits = |(stamp, name, rest): &&(&str, &str, &str)| {
        bytes = bytes.saturating_add(stamp.len() + name.len() + rest.len() + 4);
        bytes <= max_bytes
    };
    let newest = lines.iter().rev().take_while(fits).count();
    let mut text = String::new();
    for (stamp, name, rest) in lines.iter().skip(lines.len().saturating_sub(newest)) {
        text.extend([stamp, " ", name, ": ", rest, "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u32, text: &str) -> String {
        format!("2026-11-22T01:02:{second:02}.456Z {text}\n")
    }

    #[test]
    fn lines_are_put_in_order_of_time_and_cut_lines_left_out() {
        let tails = [
            ("init", format!("cut line without time\n{}{}", at(1, "a"), at(3, "c"))),
            ("runtime", format!("{}{}", at(1, "b"), at(2, "x y"))),
        ];
        let wanted = at(1, "init: a") + &at(1, "runtime: b") + &at(2, "runtime: x y") + &at(3, "init: c");
        assert_eq!(merge(&tails, 1000), wanted);
        assert_eq!(merge(&tails, 80), at(2, "runtime: x y") + &at(3, "init: c"));
        assert_eq!(merge(&tails, 0), "");
    }

    #[test]
    fn what_is_left_is_found_by_the_next_boot() {
        let folder = std::env::temp_dir().join(format!("keel-init-farewell-{}", std::process::id()));
        let path = folder.join("init/last-words");
        let words = LastWords { boot_id: "b".into(), log: at(1, "init: end"), ..LastWords::default() };
        leave(&path, &LastWords { boot_id: "older".into(), ..words.clone() }).unwrap();
        leave(&path, &words).unwrap();
        assert_eq!(LastWords::parse(&fs::read_to_string(&path).unwrap()), Some(words));
        fs::remove_dir_all(folder).unwrap();
    }
}
