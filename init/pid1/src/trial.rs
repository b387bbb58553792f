//! The trial of a release: it must be declared good before its deadline, or the machine restarts.

/// Whether a trial is running, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The boot loader still counts this release's tries, and nobody has declared it good.
    pub running: bool,
    /// Milliseconds since boot by which it must be declared good.
    pub deadline_ms: u64,
}

impl Trial {
    /// When the deadline is due, if there is one.
    pub fn due_ms(&self) -> Option<u64> {
        self.running.then_some(self.deadline_ms)
    }

    /// Whether the release failed.
    pub fn has_failed(&self, now_ms: u64) -> bool {
        self.running && now_ms >= self.deadline_ms
    }

    /// The release was declared good.
    pub fn passed(self) -> Self {
        Self { running: false, ..self }
    }

    /// The deadline moves; no effect outside a trial.
    pub fn moved(self, deadline_ms: u64) -> Self {
        if self.running { Self { deadline_ms, ..self } } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_running_trial_fails() {
        let trial = Trial { running: true, deadline_ms: 1000 };
        assert!(!trial.has_failed(999) && trial.has_failed(1000));
        assert!(!trial.passed().has_failed(5000));
        assert!(!trial.moved(6000).has_failed(5000));
        let settled = Trial { running: false, deadline_ms: 1000 };
        assert_eq!((settled.moved(7).due_ms(), settled.moved(7).deadline_ms), (None, 1000));
    }
}
