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
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    };
    Ok(Check { options, command })
}

/// Go's durations (package time, ParseDuration): `1m30s`, `1.5s`, `.5h`, `100us`. Negative ones mean nothing here.
fn duration_ns(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a duration such as 30s");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    let mut total: i64 = if rest.is_empty() { return Err(bad()) } else { 0 };
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit_ns: i64 = match unit {
            "ns" => 1,
            // Both of the letters that look like this.
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        total = part_ns(number, unit_ns).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = after;
    }
    Ok(total)
}

/// So many units, with a fraction: what of it is less than a nanosecond is cut off.
fn part_ns(number: &str, unit_ns: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    // An hour has 13 digits of nanoseconds: further ones say nothing.
    let digits = fraction.get(..fraction.len().min(15)).unwrap_or_default();
    let (mut parts, mut scale) = (0_i128, 1_i128);
    for digit in fraction.bytes() {
        // Also those that are left out have to be digits.
        digit.is_ascii_digit().then_some(())?;
    }
    for digit in digits.bytes() {
        (parts, scale) = (parts * 10 + i128::from(digit - b'0'), scale * 10);
    }
    let fraction_ns = i64::try_from(parts * i128::from(unit_ns) / scale).ok()?;
    whole.checked_mul(unit_ns)?.checked_add(fraction_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, ns) in [
            ("0", 0),
            ("1m30s", 90_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5h", 1_800_000_000_000),
            ("1.h", 3_600_000_000_000),
            ("+2ms", 2_000_000),
            ("100us", 100_000),
            ("100\u{b5}s7ns", 100_007),
            ("100\u{3bc}s", 100_000),
            ("0.3333333333333333333333h", 1_199_999_999_999),
            ("2562047h", 9_223_369_200_000_000_000),
        ] {
            assert_eq!(duration_ns(text), Ok(ns), "{text}");
        }
        for text in ["", "+", "1", "s", ".s", "1.2.3s", "-1s", "1 s", "3000000h", "1d", "99999999999999999999s"] {
            assert!(duration_ns(text).is_err(), "{text}");
        }
    }
}
