//! How long to wait after failures.

/// A pause that doubles with each failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    /// Failures in a row.
    pub failures: u32,
    /// Not before this, seconds since the Unix epoch.
    pub until_unix_s: u64,
}

/// Bounds of pauses.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// After the first failure, in seconds.
    pub first_s: u64,
    /// The longest, in seconds.
    pub most_s: u64,
}

impl Backoff {
    /// Whether it is time for another try. A clock that was set back makes nobody wait longer than the longest pause.
    pub fn ready(&self, now_unix_s: u64, pauses: Pauses) -> bool {
        now_unix_s >= self.until_unix_s || self.until_unix_s > now_unix_s.saturating_add(pauses.most_s * 2)
    }

    /// After another failure. `share` out of 1,000 is added, so that hosts which failed together don't try together.
    pub fn failed(self, now_unix_s: u64, pauses: Pauses, share: u64) -> Self {
        let doubled = pauses.first_s.saturating_mul(1 << self.failures.min(20));
        let pause = doubled.min(pauses.most_s);
        Self {
            failures: self.failures.saturating_add(1),
            until_unix_s: now_unix_s.saturating_add(pause + pause * share.min(1000) / 1000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSES: Pauses = Pauses { first_s: 60, most_s: 600 };

    #[test]
    fn pauses_double_up_to_their_bound() {
        let mut backoff = Backoff::default();
        let mut pauses = Vec::new();
        for _ in 0..40 {
            backoff = backoff.failed(1000, PAUSES, 0);
            pauses.push(backoff.until_unix_s - 1000);
        }
        assert_eq!((&pauses[..5], pauses[39]), (&[60, 120, 240, 480, 600][..], 600));
        assert_eq!(backoff.failed(1000, PAUSES, 1000).until_unix_s, 1000 + 1200);
    }

    #[test]
    fn a_clock_that_is_set_back_by_years_does_not_stop_anything() {
        let backoff = Backoff::default().failed(2_000_000_000, PAUSES, 1000);
        assert!(!backoff.ready(2_000_000_000, PAUSES) && backoff.ready(2_000_000_120, PAUSES));
        assert!(backoff.ready(1_700_000_000, PAUSES));
    }
}
