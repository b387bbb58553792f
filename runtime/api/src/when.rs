//! Times in requests.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::respond::Failure;

/// Seconds since the Unix epoch with up to nine decimals, as `docker logs --since` sends them; as nanoseconds.
pub fn unix_ns(text: &str) -> Result<u64, Failure> {
    parse_unix(text)
        .ok_or_else(|| Failure::bad_request(format!("{text:?} is no time: want seconds since 1970[.nanoseconds]")))
}

/// The same, or RFC 3339, or a duration before now in Go's words (`1h30m`), as filters named `until` take them.
pub fn moment(text: &str) -> Result<u64, Failure> {
    let rfc3339 = || {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        u64::try_from(time.unix_timestamp_nanos()).ok()
    };
    let before_now = || now_ns().checked_sub(duration_ns(text)?);
    parse_unix(text).or_else(rfc3339).or_else(before_now).ok_or_else(|| {
        Failure::bad_request(format!("{text:?} is no time: want seconds since 1970, RFC 3339, or a duration as 1h30m"))
    })
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn parse_unix(text: &str) -> Option<u64> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos = match fraction.get(..fraction.len().min(9))? {
        "" => 0,
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse::<u64>().ok()? * 10_u64.pow(u32::try_from(9 - digits.len()).ok()?)
        }
        _ => return None,
    };
    seconds.parse::<u64>().ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

/// `1h30m10s`: numbers with units, at least one.
fn duration_ns(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at_checked(digits)?;
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(unit_end)?;
        let unit_ns = match unit {
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ns)?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_to_the_nanosecond() {
        assert_eq!(unix_ns("12.000000005").unwrap(), 12_000_000_005);
        assert_eq!(unix_ns("12.5").unwrap(), 12_500_000_000);
        assert_eq!(unix_ns("12").unwrap(), 12_000_000_000);
        for text in ["-1", "x", "1.x", "99999999999999999999"] {
            assert!(unix_ns(text).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_read_in_all_three_ways() {
        assert_eq!(moment("12").unwrap(), 12_000_000_000);
        assert_eq!(moment("1970-01-01T00:00:01.5Z").unwrap(), 1_500_000_000);
        assert_eq!(duration_ns("1h30m"), Some(5_400_000_000_000));
        assert!(moment("10m").unwrap() < now_ns());
        for text in ["", "m", "5", "5x", "1970-01-01"] {
            assert_eq!(duration_ns(text), None, "{text}");
        }
    }
}
