//! The audit log: a JSON line for each call, through this service's own log, so that it is bounded and read like that:
//! `keelctl logs runtime`. Of calls that change nothing and come again and again only the first is a line at once, and
//! after a while one that says how many followed: who asks each second must not push out what others have changed.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::StatusCode;
use serde_json::json;

use crate::roles::Caller;

/// Longest object that is named, characters.
const MAX_OBJECT: usize = 256;
/// For how long calls that are alike are counted together.
const TOGETHER: Duration = Duration::from_secs(600);
/// Most kinds of them that are counted; beyond, counts are told early.
const MAX_KINDS: usize = 512;

/// One call, for the log.
pub struct Entry<'a> {
    /// Who called.
    pub caller: &'a Caller,
    /// How.
    pub method: &'a str,
    /// The route, as the table has it.
    pub route: &'static str,
    /// What it is about.
    pub object: &'a str,
    /// What was answered.
    pub status: StatusCode,
    /// How long that took.
    pub took: Duration,
}

/// Writes a line. Of a streamed answer the status is that of its beginning.
pub fn log(entry: &Entry<'_>) {
    ::log::info!("audit {}", line(entry, 0));
}

/// Calls that changed nothing, of late.
#[derive(Debug, Default)]
pub struct Reads(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    kinds: HashMap<Alike, Counted>,
    /// When the oldest of them is over; until then no call looks through all.
    due: Option<Instant>,
}

/// What makes two of them alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Alike {
    who: String,
    method: String,
    route: &'static str,
    object: String,
    status: StatusCode,
}

#[derive(Debug)]
struct Counted {
    since: Instant,
    further: u64,
    /// The line that tells of the further ones.
    line: String,
}

impl Reads {
    /// Writes what is to be told now that such a call has been made.
    pub fn log(&self, entry: &Entry<'_>) {
        for line in self.told(entry, Instant::now()) {
            ::log::info!("audit {line}");
        }
    }

    fn told(&self, entry: &Entry<'_>, now: Instant) -> Vec<String> {
        let alike = Alike {
            who: entry.caller.name.clone(),
            method: entry.method.to_owned(),
            route: entry.route,
            object: entry.object.chars().take(MAX_OBJECT).collect(),
            status: entry.status,
        };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = Vec::new();
        let is_full = known.kinds.len() >= MAX_KINDS && !known.kinds.contains_key(&alike);
        if is_full || known.due.is_some_and(|due| due <= now) {
            known.kinds.retain(|_, counted| {
                let goes = is_full || now.duration_since(counted.since) >= TOGETHER;
                if goes && counted.further > 0 {
                    lines.push(std::mem::take(&mut counted.line));
                }
                !goes
            });
            known.due = known.kinds.values().map(|counted| counted.since + TOGETHER).min();
        }
        match known.kinds.get_mut(&alike) {
            Some(counted) => {
                counted.further += 1;
                counted.line = line(entry, counted.further);
            }
            None => {
                lines.push(line(entry, 0));
                known.kinds.insert(alike, Counted { since: now, further: 0, line: String::new() });
                known.due.get_or_insert(now + TOGETHER);
            }
        }
        lines
    }
}

/// `further`: of how many it tells, if not of itself alone.
fn line(entry: &Entry<'_>, further: u64) -> String {
    let object: String = entry.object.chars().take(MAX_OBJECT).collect();
    let mut line = json!({
        "who": entry.caller.name, "role": entry.caller.role.name(),
        "from": entry.caller.address.map(|address| address.to_string()),
        "verb": format!("{} {}", entry.method, entry.route), "object": object,
        "status": entry.status.as_u16(), "took_ms": u64::try_from(entry.took.as_millis()).unwrap_or(u64::MAX),
    });
    if further > 0 {
        line["further"] = further.into();
    }
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_and_bounded_whatever_is_asked_for() {
        let caller = Caller { address: Some("192.0.2.1:9".parse().unwrap()), ..Caller::local() };
        let object = "\"\n".repeat(1000);
        let entry = Entry {
            caller: &caller,
            method: "POST",
            route: "/containers/{}/start",
            object: &object,
            status: StatusCode::NO_CONTENT,
            took: Duration::from_millis(7),
        };
        let line = line(&entry, 0);
        assert!(line.len() < 1200 && !line.contains('\n'), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["verb"], &value["status"]), (&json!("POST /containers/{}/start"), &json!(204)));
        assert_eq!((&value["from"], &value["took_ms"]), (&json!("192.0.2.1:9"), &json!(7)));
    }

    #[test]
    fn calls_that_are_alike_are_told_once_and_then_counted() {
        let (reads, caller, begun) = (Reads::default(), Caller::local(), Instant::now());
        let told = |object: &str, after_s: u64| -> Vec<serde_json::Value> {
            let (status, took) = (StatusCode::OK, Duration::ZERO);
            let entry = Entry { caller: &caller, method: "GET", route: "/containers/{}/json", object, status, took };
            let lines = reads.told(&entry, begun + Duration::from_secs(after_s));
            lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        assert_eq!(told("web", 0)[0]["object"], "web");
        assert_eq!(told("db", 1)[0]["object"], "db");
        assert!((2..599).all(|second| told("web", second).is_empty()));
        let later = told("other", 601);
        assert_eq!((&later[0]["object"], &later[0]["further"]), (&json!("web"), &json!(597)));
        assert_eq!((later.len(), &later[1]["object"], later[1].get("further")), (2, &json!("other"), None));
        assert_eq!(told("web", 602)[0].get("further"), None, "it begins anew");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (reads, caller, now) = (Reads::default(), Caller::local(), Instant::now());
        for number in 0..3 * MAX_KINDS {
            let object = format!("container-{}", number / 2);
            let (status, took) = (StatusCode::NOT_FOUND, Duration::ZERO);
            let entry =
                Entry { caller: &caller, method: "GET", route: "/containers/{}/json", object: &object, status, took };
            let lines = reads.told(&entry, now).len();
            let is_full = number == 2 * MAX_KINDS;
            assert_eq!(lines, (1 - number % 2) + if is_full { MAX_KINDS } else { 0 }, "{number}");
        }
        assert!(reads.0.lock().unwrap().kinds.len() <= MAX_KINDS);
    }
}
