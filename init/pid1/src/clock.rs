//! Clocks, in the units that the rest of PID 1 counts in.

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Milliseconds in a unit of `/proc/stat`: `USER_HZ` is 100 on all that Keel runs on (proc(5)).
const MS_PER_TICK: u64 = 10;

/// Milliseconds since the kernel started (`CLOCK_BOOTTIME`).
pub fn boot_ms() -> u64 {
    milliseconds(clock_gettime(ClockId::Boottime))
}

/// Milliseconds since the Unix epoch.
pub fn unix_ms() -> u64 {
    milliseconds(clock_gettime(ClockId::Realtime))
}

/// Milliseconds for which processors had nothing to do since the kernel started, summed over processors: idle, or waiting
/// for a disk alone (proc(5), `stat`; `uptime` leaves the waits out). 0 where `/proc` isn't mounted.
pub fn idle_ms() -> u64 {
    std::fs::read_to_string("/proc/stat").map_or(0, |text| parse_idle(&text).unwrap_or(0))
}

fn parse_idle(stat: &str) -> Option<u64> {
    let mut columns = stat.strip_prefix("cpu ")?.lines().next()?.split_ascii_whitespace().skip(3);
    let mut ticks = || columns.next()?.parse::<u64>().ok();
    let (idle, waiting) = (ticks()?, ticks()?);
    Some(idle.saturating_add(waiting).saturating_mul(MS_PER_TICK))
}

/// Sets the clock forward to `unix_s`, if it is behind; says whether it was.
pub fn not_before(unix_s: u64) -> bool {
    let Ok(tv_sec) = i64::try_from(unix_s) else { return false };
    unix_ms() / 1000 < unix_s && clock_settime(ClockId::Realtime, Timespec { tv_sec, tv_nsec: 0 }).is_ok()
}

/// `2026-11-22T01:02:03.456Z` (RFC 3339), from milliseconds since the epoch.
pub fn rfc3339(unix_ms: u64) -> String {
    let (days, of_day_ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    // Days are counted from 1 March of year 0, so that leap days end a year (H. Hinnant, "chrono-compatible
    // low-level date algorithms").
    let shifted = days.saturating_add(719_468);
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (seconds, ms) = (of_day_ms / 1000, of_day_ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn milliseconds(time: Timespec) -> u64 {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let ms = u64::try_from(time.tv_nsec).unwrap_or(0) / 1_000_000;
    seconds.saturating_mul(1000).saturating_add(ms)
}

#[cfg(test)]
mod tests {
    use super::{parse_idle, rfc3339};

    #[test]
    fn idle_time_has_the_waits_for_disks() {
        assert_eq!(parse_idle("cpu  12 0 34 2344 56 0 7 0 0 0\ncpu0 12 0 34 2344 56 0 7 0 0 0\n"), Some(24_000));
        assert_eq!(parse_idle("cpu  12 0 34 2344"), None);
        assert_eq!(parse_idle("cpu0 12 0 34 2344 56\n"), None);
        assert_eq!(parse_idle(""), None);
    }

    #[test]
    fn dates_around_leap_days_are_right() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(rfc3339(1_709_251_199_000), "2024-02-29T23:59:59.000Z");
        assert_eq!(rfc3339(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
