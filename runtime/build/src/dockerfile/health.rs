//! The options of `HEALTHCHECK`.

use keel_store::Healthcheck;

use super::instruction::Command;
use super::words::{flags, json_words};

/// A check as written; which shell a line goes to is the image's affair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Times and tries; its test is empty.
    pub options: Healthcheck,
    /// What is run; `None`: no check, not even the base image's.
    pub command: Option<Command>,
}

/// Reads `NONE`, or `--interval=30s --retries=3 CMD command`.
pub fn parse(text: &str, escape: char) -> Result<Check, String> {
    let (flags, rest) = flags(text, escape);
    let mut options = Healthcheck::default();
    for (name, value) in &flags {
        let value = value.as_deref().ok_or_else(|| format!("--{name} wants a value"))?;
        match name.as_str() {
            "interval" => options.interval = duration_ns(value)?,
            "timeout" => options.timeout = duration_ns(value)?,
            "start-period" => options.start_period = duration_ns(value)?,
            "start-interval" => options.start_interval = duration_ns(value)?,
            "retries" => options.retries = value.parse().map_err(|_| format!("{value:?} is not a number"))?,
            other => return Err(format!("unknown flag: --{other}")),
        }
    }
    if options.retries < 0 {
        return Err(format!("--retries cannot be negative ({})", options.retries));
    }
    let (kind, line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let line = line.trim();
    let command = match kind.to_ascii_uppercase().as_str() {
        "NONE" if line.is_empty() && flags.is_empty() => None,
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".into()),
        "CMD" if line.is_empty() => return Err("missing command after HEALTHCHECK CMD".into()),
        "CMD" => Some(json_words(line).map_or_else(|| Command::Shell(line.into()), Command::Exec)),
        other => return Err(format!("unknown type {other:?} in HEALTHCHECK (try CMD)")),
    };
    Ok(Check { options, command })
}

/// Go's durations (package time, ParseDuration) without fractions: `1m30s`, `500ms`.
fn duration_ns(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a duration such as 30s");
    let mut total: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let factor: i64 = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        let number: i64 = number.parse().map_err(|_| bad())?;
        total = number.checked_mul(factor).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = after;
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
}
