//! The wall clock, and how Docker's API writes it.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::macros::format_description;

/// What Docker writes for "never".
pub const NEVER: &str = "0001-01-01T00:00:00Z";

/// Nanoseconds since the Unix epoch.
pub fn unix_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    unix_ns() / 1_000_000
}

/// RFC 3339 in UTC with nine digits of the second's fraction, as Docker writes times.
pub fn rfc3339(unix_ns: u64) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:9]Z");
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ns))
        .ok()
        .and_then(|time| time.format(&format).ok())
        .unwrap_or_else(|| NEVER.into())
}

/// The same from milliseconds; `None` is never.
pub fn rfc3339_ms(unix_ms: Option<u64>) -> String {
    unix_ms.map_or_else(|| NEVER.into(), |ms| rfc3339(ms.saturating_mul(1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_docker_writes_them() {
        assert_eq!(rfc3339(1_700_000_000_000_000_001), "2023-11-14T22:13:20.000000001Z");
        assert_eq!(rfc3339_ms(None), NEVER);
    }
}
