//! The table of results, for people and for programs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::expect;
use crate::lab::Runtime;
use crate::run::{Outcome, Ran};

/// How a result stands to what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Passed.
    Pass,
    /// Failed, and nobody knew.
    Fail,
    /// Failed, as is known.
    Known,
    /// Passed, though it is known to fail.
    Stale,
    /// Needs another machine.
    Elsewhere,
}

/// How a result stands to what is known of the runtime.
pub(crate) fn mark(ran: &Ran) -> Mark {
    let known = expect::deviations(&ran.runtime).contains_key(ran.case.name);
    match (&ran.outcome, known) {
        (Outcome::Passed, false) => Mark::Pass,
        (Outcome::Passed, true) => Mark::Stale,
        (Outcome::Failed(_), false) => Mark::Fail,
        (Outcome::Failed(_), true) => Mark::Known,
        (Outcome::Elsewhere, _) => Mark::Elsewhere,
    }
}

/// One line for one result.
pub(crate) fn line(ran: &Ran) -> String {
    let head = |word: &str| format!("{word:9} {} {} ({} ms)", ran.runtime, ran.case.name, ran.took_ms);
    match (mark(ran), &ran.outcome) {
        (Mark::Pass, _) => head("ok"),
        (Mark::Stale, _) => head("ok") + ": is listed as a deviation, but passes",
        (Mark::Elsewhere, _) => head("elsewhere") + ": needs " + ran.case.needs.text(),
        (Mark::Known, _) => {
            let reason = expect::deviations(&ran.runtime).get(ran.case.name).copied().unwrap_or_default();
            head("known") + ": " + reason
        }
        (Mark::Fail, Outcome::Failed(why)) => format!("{}: {} [{}]", head("FAILED"), why, ran.case.section),
        (Mark::Fail, _) => head("FAILED"),
    }
}

/// Runtime × case, then sums, then the reasons of deviations.
pub(crate) fn table(results: &[Ran], runtimes: &[Runtime]) -> String {
    let mut rows: BTreeMap<&str, BTreeMap<&str, &Ran>> = BTreeMap::new();
    for ran in results {
        rows.entry(ran.case.name).or_default().insert(&ran.runtime, ran);
    }
    let width = rows.keys().map(|name| name.len()).max().unwrap_or(4);
    let mut text = format!("{:width$}", "case");
    for runtime in runtimes {
        let _ = write!(text, "  {:9}", runtime.name);
    }
    text.push_str("  section\n");
    for (name, row) in &rows {
        let _ = write!(text, "{name:width$}");
        for runtime in runtimes {
            let word = match row.get(runtime.name.as_str()).map(|ran| mark(ran)) {
                Some(Mark::Pass) => "ok",
                Some(Mark::Fail) => "FAILED",
                Some(Mark::Known) => "deviates",
                Some(Mark::Stale) => "ok*",
                Some(Mark::Elsewhere) | None => "-",
            };
            let _ = write!(text, "  {word:9}");
        }
        let section = row.values().next().map_or("", |ran| ran.case.section);
        let _ = writeln!(text, "  {section}");
    }
    text.push('\n');
    for runtime in runtimes {
        let _ = writeln!(text, "{}", sums(results, &runtime.name));
    }
    for runtime in runtimes {
        for ran in results.iter().filter(|ran| ran.runtime == runtime.name) {
            if matches!(mark(ran), Mark::Known | Mark::Stale | Mark::Fail) {
                let _ = writeln!(text, "{}", line(ran));
            }
        }
    }
    text
}

/// How many of each kind one runtime has.
pub(crate) fn sums(results: &[Ran], runtime: &str) -> String {
    let count =
        |wanted: &[Mark]| results.iter().filter(|ran| ran.runtime == runtime && wanted.contains(&mark(ran))).count();
    format!(
        "{runtime}: {} passed, {} failed, {} known deviations, {} need another machine",
        count(&[Mark::Pass, Mark::Stale]),
        count(&[Mark::Fail]),
        count(&[Mark::Known]),
        count(&[Mark::Elsewhere])
    )
}

/// For programs.
pub(crate) fn json(results: &[Ran]) -> Value {
    let entries = results.iter().map(|ran| {
        let why = match &ran.outcome {
            Outcome::Failed(why) => Some(why.as_str()),
            _ => None,
        };
        let outcome = match mark(ran) {
            Mark::Pass => "passed",
            Mark::Stale => "passed, though listed",
            Mark::Fail => "failed",
            Mark::Known => "known deviation",
            Mark::Elsewhere => "elsewhere",
        };
        let (case, section) = (ran.case.name, ran.case.section);
        json!({ "runtime": ran.runtime, "case": case, "section": section, "outcome": outcome, "why": why,
            "tookMs": ran.took_ms as u64 })
    });
    Value::Array(entries.collect())
}
