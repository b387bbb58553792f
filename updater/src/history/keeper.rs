//! Keeps the history while the machine runs: what came of a trial, how long the machine has run, the last log lines.
//!
//! An end in order leaves all that behind by itself. For one without warning the last lines are written now and then:
//! often at first, when a release fails most, then every quarter of an hour, and only if something was said.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keel_link::control;
use keel_spec::api::boots::{Boot, TrialOutcome};
use keel_spec::last_words::{LastWords, MAX_LOG_BYTES};

use super::file::{File, Record};
use super::step::{self, Now};
use crate::failure::{Failure, Result};
use crate::host;

/// How long the machine ran is written at least so often, whether anything was said or not.
const WRITE_EVERY_MS: u64 = 3_600_000;
/// Seconds by which the clock has to move for the boot's beginning to be put right.
const CLOCK_STEP_S: u64 = 5;
/// Most bytes of the kernel's messages that are kept.
const MAX_KERNEL_BYTES: usize = 40 << 10;

/// The history of this machine, this boot included.
pub struct Keeper {
    file: File,
    records: Mutex<Vec<Record>>,
}

impl Keeper {
    /// Takes in what the boot before left behind, and begins this one's record. `kernel`: its messages from pstore.
    pub fn begin(folder: &Path, now: &Now, kernel: Option<&str>) -> Result<Self> {
        let file = File::new(folder);
        let before = file.read();
        let records = step::begin(before.clone(), now);
        if records != before {
            keep_logs(&file, &records, now.words.as_ref(), kernel)?;
            file.write(&records)?;
        }
        Ok(Self { file, records: records.into() })
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All boots, newest first; the first one is this one.
    pub fn boots(&self) -> Vec<Boot> {
        let mut boots: Vec<Boot> = self.records().iter().map(|record| record.boot.clone()).collect();
        if let Some(this) = boots.first_mut() {
            this.ran_ms = host::since_boot_ms();
        }
        boots
    }

    /// The last lines of a boot, if they are kept; of this one as they are now.
    pub fn log(&self, number: u64) -> Result<Option<String>> {
        let this = self.records().first().map(|record| record.boot.number);
        match this == Some(number) {
            true => last_lines().map(Some),
            false => self.file.read_log(number),
        }
    }

    /// Writes down what came of this boot's trial.
    pub fn trial_ended(&self, outcome: TrialOutcome, reason: &str) -> Result<()> {
        self.change(|boot| {
            if let Some(trial) = &mut boot.trial {
                trial.outcome = outcome;
                reason.clone_into(&mut trial.reason);
            }
        })
    }

    /// Keeps it for as long as the machine runs.
    pub fn run(&self) {
        let (mut said, mut written_ms) = (0, host::since_boot_ms());
        // Endless, since the machine is; each round is bounded by what PID 1 keeps.
        loop {
            std::thread::sleep(pause(host::since_boot_ms()));
            if let Err(failure) = self.round(&mut said, &mut written_ms) {
                log::warn!("keep the history of boots: {failure}");
            }
        }
    }

    fn round(&self, said: &mut u64, written_ms: &mut u64) -> Result<()> {
        let (lines, now_ms) = (last_lines()?, host::since_boot_ms());
        let mut hasher = DefaultHasher::new();
        lines.hash(&mut hasher);
        let new = std::mem::replace(said, hasher.finish()) != *said;
        if new && let Some(number) = self.records().first().map(|record| record.boot.number) {
            self.file.write_log(number, &lines)?;
        }
        if new || now_ms.saturating_sub(*written_ms) >= WRITE_EVERY_MS {
            *written_ms = now_ms;
            self.change(|boot| run_on(boot, now_ms, host::now_unix_s()))?;
        }
        Ok(())
    }

    fn change(&self, change: impl FnOnce(&mut Boot)) -> Result<()> {
        let mut records = self.records();
        if let Some(this) = records.first_mut() {
            change(&mut this.boot);
        }
        self.file.write(&records)
    }
}

/// It ran until now. A clock that was set meanwhile puts its beginning right.
fn run_on(boot: &mut Boot, since_boot_ms: u64, now_unix_s: u64) {
    boot.ran_ms = since_boot_ms;
    let started = now_unix_s.saturating_sub(since_boot_ms / 1000);
    if started.abs_diff(boot.started_unix_s) > CLOCK_STEP_S {
        boot.clock_known |= started > boot.started_unix_s;
        boot.started_unix_s = started;
    }
}

/// What the boot before said last: what PID 1 left, or what was kept of it while it ran; and the kernel's messages.
fn keep_logs(file: &File, records: &[Record], words: Option<&LastWords>, kernel: Option<&str>) -> Result<()> {
    if let Some(words) = words
        && let Some(record) = records.iter().find(|record| record.boot.boot_id == words.boot_id)
    {
        file.write_log(record.boot.number, &words.log)?;
    }
    if let (Some(kernel), Some(before)) = (kernel, records.get(1)) {
        let number = before.boot.number;
        let mut text = file.read_log(number)?.unwrap_or_default();
        let from = kernel.ceil_char_boundary(kernel.len().saturating_sub(MAX_KERNEL_BYTES));
        text.extend(["\nkernel messages\n", kernel.get(from..).unwrap_or_default()]);
        file.write_log(number, &text)?;
    }
    Ok(())
}

/// The last lines of all logs, as PID 1 has them.
fn last_lines() -> Result<String> {
    let failed = || "ask PID 1 for the last lines of all logs";
    let lines = control::Client::connect().and_then(|mut pid1| pid1.last_lines()).map_err(Failure::io(failed()))?;
    let mut bytes = Vec::new();
    let read = std::fs::File::from(lines).take(2 * MAX_LOG_BYTES as u64).read_to_end(&mut bytes);
    read.map_err(Failure::io(failed()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Between two rounds.
fn pause(since_boot_ms: u64) -> Duration {
    Duration::from_secs(match since_boot_ms {
        0..300_000 => 30,
        300_000..3_600_000 => 300,
        _ => 900,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("keel-updater-keeper-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn now(id: &str) -> Now<'static> {
        let boot = Boot {
            number: 0,
            boot_id: id.into(),
            started_unix_s: 1000,
            clock_known: false,
            version: "1.0.0".parse().unwrap(),
            slot: "a".into(),
            trial: Some(step::trial(2, 1)),
            ran_ms: 0,
            end: None,
        };
        Now { boot, words: None, panic: None, watchdog: false, tried: None, demoted: None }
    }

    #[test]
    fn the_last_lines_of_a_boot_and_the_kernels_messages_outlive_it() {
        let folder = folder("lines");
        let first = Keeper::begin(&folder, &now("a"), None).unwrap();
        first.file.write_log(1, "kept while it ran\n").unwrap();
        let second = Keeper::begin(&folder, &now("b"), Some("Panic#1\noops\n")).unwrap();
        assert_eq!(second.log(1).unwrap().unwrap(), "kept while it ran\n\nkernel messages\nPanic#1\noops\n");
        let words = LastWords { boot_id: "b".into(), log: "left at the end\n".into(), ..LastWords::default() };
        let third = Keeper::begin(&folder, &Now { words: Some(words), ..now("c") }, None).unwrap();
        assert_eq!(third.log(2).unwrap().unwrap(), "left at the end\n");
        assert_eq!(third.boots().len(), 3);
    }

    #[test]
    fn what_came_of_a_trial_is_on_the_disk_before_the_restart() {
        let folder = folder("trial");
        let keeper = Keeper::begin(&folder, &now("a"), None).unwrap();
        keeper.trial_ended(TrialOutcome::Failed, "container web not up").unwrap();
        let next = Keeper::begin(&folder, &now("b"), None).unwrap();
        assert_eq!(next.boots()[1].end.as_ref().unwrap().reason, "container web not up");
    }

    #[test]
    fn a_clock_that_was_set_puts_the_beginning_right() {
        let mut boot = now("a").boot;
        run_on(&mut boot, 10_000, 1012);
        assert_eq!((boot.started_unix_s, boot.clock_known, boot.ran_ms), (1000, false, 10_000));
        run_on(&mut boot, 20_000, 90_020);
        assert_eq!((boot.started_unix_s, boot.clock_known), (90_000, true));
    }
}
