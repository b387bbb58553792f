//! A bandwidth limit, shared by everything that is fetched at once.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How much may have been saved up while nothing was fetched.
const BURST: Duration = Duration::from_millis(250);

/// Bytes per second, or no limit.
#[derive(Debug, Default)]
pub struct Pace {
    bytes_per_s: Option<u64>,
    /// When everything so far will have been paid for.
    paid_at: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most this many bytes per second; 0: no limit.
    pub fn new(bytes_per_s: u64) -> Self {
        Self { bytes_per_s: Some(bytes_per_s).filter(|bytes| *bytes > 0), paid_at: Mutex::default() }
    }

    /// How long to wait after so many bytes that came at `now`.
    fn charge(&self, bytes: u64, now: Instant) -> Duration {
        let Some(bytes_per_s) = self.bytes_per_s else { return Duration::ZERO };
        let cost = Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / bytes_per_s);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid_at.unwrap_or(now).max(now.checked_sub(BURST).unwrap_or(now));
        let until = from + cost;
        *paid_at = Some(until);
        until.saturating_duration_since(now)
    }

    /// Waits until so many bytes more may be fetched.
    pub fn wait(&self, bytes: u64) {
        let pause = self.charge(bytes, Instant::now());
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_paid_for_with_time_and_idle_time_is_not_saved_up() {
        let (pace, start) = (Pace::new(1000), Instant::now());
        assert_eq!(pace.charge(500, start), Duration::from_millis(500));
        assert_eq!(pace.charge(500, start), Duration::from_secs(1));
        assert_eq!(pace.charge(0, start + Duration::from_secs(1)), Duration::ZERO);
        let later = start + Duration::from_secs(100);
        assert_eq!(pace.charge(1000, later), Duration::from_secs(1) - BURST);
        assert_eq!(Pace::new(0).charge(u64::MAX, start), Duration::ZERO);
    }
}
