//! What the start of the updater makes of the history, without I/O.

use keel_spec::api::boots::{Boot, BootEnd, BootTrial, EndCause, TrialOutcome};
use keel_spec::last_words::LastWords;
use keel_spec::release::Version;

use super::file::Record;

/// Most boots that are remembered; the oldest are forgotten.
pub const MAX_BOOTS: usize = 64;
/// Most boots that are put in afterwards at one start.
const MAX_MISSED: u32 = 9;

/// What the updater finds when it starts.
#[derive(Clone, Debug)]
pub struct Now<'a> {
    /// This boot, without its number.
    pub boot: Boot,
    /// What PID 1 left behind.
    pub words: Option<LastWords>,
    /// The words of a kernel panic.
    pub panic: Option<String>,
    /// Whether the hardware watchdog reset the machine.
    pub watchdog: bool,
    /// A release that was or is on trial, and how often the boot loader has tried it, this boot included.
    pub tried: Option<(&'a Version, u32)>,
    /// The release that an operator rolled back from last.
    pub demoted: Option<&'a Version>,
}

/// Closes the record of the boot before, puts in those that left none, and begins this one's. Newest first. Nothing
/// changes if this boot has begun already: then it's the updater that was started again.
pub fn begin(mut records: Vec<Record>, now: &Now) -> Vec<Record> {
    if records.first().is_some_and(|record| record.boot.boot_id == now.boot.boot_id) {
        return records;
    }
    // Power may have failed before words that were taken in could be removed.
    let is_old = |words: &LastWords| records.iter().any(|it| it.boot.boot_id == words.boot_id && it.boot.end.is_some());
    let mut words = now.words.clone().filter(|words| !is_old(words));
    let mut evidence = evidence(now);
    let next = next_release(&records, now);
    if let Some(last) = records.first_mut().map(|record| &mut record.boot).filter(|boot| boot.end.is_none()) {
        let its_own = words.take_if(|words| words.boot_id == last.boot_id);
        // Words of a boot without a record are of a later one, and so is what else was left behind.
        last.end = Some(match (&its_own, &words) {
            (Some(words), _) => in_order(last, words, now),
            (None, Some(_)) => nothing_left(last),
            (None, None) => failed_trial(last).or(evidence.take()).unwrap_or_else(|| nothing_left(last)),
        });
        last.ran_ms = its_own.map_or(last.ran_ms, |words| words.ran_ms);
    }
    let mut put_in = 0;
    if let Some(words) = &words {
        let end = in_order(&Boot { version: next.clone(), trial: None, ..now.boot.clone() }, words, now);
        let missed = missed_boot(&records, &next, end);
        let missed = Boot { boot_id: words.boot_id.clone(), ran_ms: words.ran_ms, ..missed };
        records.insert(0, Record::new(missed));
        put_in += 1;
    }
    if let Some(end) = evidence {
        records.insert(0, Record::new(missed_boot(&records, &next, end)));
        put_in += 1;
    }
    for _ in 0..missed_silently(&records, now, put_in) {
        let end = unasked(EndCause::Unknown, "did not get as far as the updater; no reason was left behind");
        records.insert(0, Record::new(missed_boot(&records, &next, end)));
    }
    let number = next_number(&records);
    records.insert(0, Record::new(Boot { number, ..now.boot.clone() }));
    records.truncate(MAX_BOOTS);
    records
}

fn next_number(records: &[Record]) -> u64 {
    records.first().map_or(1, |record| record.boot.number.saturating_add(1))
}

/// A boot that nobody wrote down.
fn missed_boot(records: &[Record], version: &Version, end: BootEnd) -> Boot {
    Boot {
        number: next_number(records),
        boot_id: String::new(),
        started_unix_s: 0,
        clock_known: false,
        version: version.clone(),
        slot: String::new(),
        trial: None,
        ran_ms: 0,
        end: Some(end),
    }
}

/// An end that nobody asked for.
fn unasked(cause: EndCause, reason: &str) -> BootEnd {
    BootEnd { cause, by: String::new(), reason: reason.into() }
}

/// What ran in a boot without a record: the release on trial if there is one, or what ran before.
fn next_release(records: &[Record], now: &Now) -> Version {
    let before = records.first().map(|record| &record.boot.version);
    now.tried.map(|(version, _)| version).or(before).unwrap_or(&now.boot.version).clone()
}

/// What was left behind without PID 1's doing.
fn evidence(now: &Now) -> Option<BootEnd> {
    let panic = now.panic.as_ref().map(|words| unasked(EndCause::Panic, words));
    panic.or(now.watchdog.then(|| unasked(EndCause::Watchdog, "the hardware watchdog reset the machine")))
}

fn nothing_left(boot: &Boot) -> BootEnd {
    let reason = "nothing was left behind: power cut, reset, or a fault of the hardware";
    failed_trial(boot).unwrap_or_else(|| unasked(EndCause::Unknown, reason))
}

/// The gate's own word on it, written down before the restart was asked for.
fn failed_trial(boot: &Boot) -> Option<BootEnd> {
    let trial = boot.trial.as_ref().filter(|trial| trial.outcome == TrialOutcome::Failed)?;
    Some(BootEnd { cause: EndCause::TrialFailed, by: "updater".into(), reason: trial.reason.clone() })
}

fn in_order(boot: &Boot, words: &LastWords, now: &Now) -> BootEnd {
    let end = |cause| BootEnd { cause, by: words.by.clone(), reason: words.reason.clone() };
    if let Some(failed) = failed_trial(boot) {
        return failed;
    }
    if words.trial_expired {
        return end(EndCause::TrialFailed);
    }
    let other = boot.version != now.boot.version;
    end(match words.how.as_str() {
        "poweroff" => EndCause::Poweroff,
        _ if other && now.demoted == Some(&boot.version) => EndCause::Rollback,
        _ if other => EndCause::Update,
        _ => EndCause::Reboot,
    })
}

/// Tries of a release that left nothing at all: those that the boot loader counted, less those that there are records
/// of, of which `put_in` have just been put in.
fn missed_silently(records: &[Record], now: &Now, put_in: u32) -> u32 {
    let Some((version, count)) = now.tried else { return 0 };
    let of_it = records.iter().skip(put_in as usize).take_while(|record| record.boot.version == *version);
    let recorded = of_it.filter_map(|record| record.boot.trial.as_ref()).map(|trial| trial.attempt).max().unwrap_or(0);
    let this = u32::from(now.boot.trial.is_some());
    count.saturating_sub(recorded).saturating_sub(put_in).saturating_sub(this).min(MAX_MISSED)
}

/// A trial of the release whose UKI has these tries.
pub fn trial(tries_left: u32, tries_done: u32) -> BootTrial {
    let tries = tries_left.saturating_add(tries_done);
    BootTrial { attempt: tries_done, tries, outcome: TrialOutcome::Undecided, reason: String::new() }
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
