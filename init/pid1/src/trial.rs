//! The trial of a release: it must be declared good before its deadline, or the machine restarts.
//!
//! Whether there is one is asked of the firmware, which takes its time: it is presumed until the answer is there.

use keel_spec::cmdline;

/// Whether a trial is running, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The tries of this release are counted still, or may be, and nobody has declared it good.
    pub running: bool,
    /// Nobody has asked the firmware yet whether they are: until then they may be.
    pub presumed: bool,
    /// Milliseconds since boot by which it must be declared good.
    pub deadline_ms: u64,
}

impl Trial {
    /// Of a boot with this command line. The name that it was started under tells after kexec: what the firmware knows
    /// is then of the boot before. Else the boot loader tells, in a variable of the firmware's, if that is of the kind
    /// that has them (`asks_firmware`).
    pub fn of_boot(cmdline: &str, asks_firmware: bool, deadline_ms: u64) -> Self {
        let named = cmdline::kexec_entry(cmdline).map(|entry| entry.tries_left.is_some());
        Self { running: named.unwrap_or(asks_firmware), presumed: named.is_none() && asks_firmware, deadline_ms }
    }

    /// The firmware says whether the boot loader counts. No effect if that was known, or once it was declared good.
    pub fn settled(self, boot_loader_counts: bool) -> Self {
        Self { running: self.running && (boot_loader_counts || !self.presumed), presumed: false, ..self }
    }

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
    fn a_trial_is_told_by_the_boot_that_is_and_not_by_the_one_before() {
        let of = |cmdline: &str, firmware| Trial::of_boot(cmdline, firmware, 1000);
        for counts in [false, true] {
            let presumed = of("roothash=1 quiet", true);
            assert!(presumed.running && presumed.has_failed(1000));
            assert_eq!(presumed.settled(counts), Trial { running: counts, presumed: false, deadline_ms: 1000 });
            assert!(of("quiet keel.entry=keel_1.2.0+2-1.efi", true).settled(counts).running);
            assert!(!of("quiet keel.entry=keel_1.2.0.efi", true).settled(counts).running);
            assert!(!of("roothash=1 quiet", false).settled(counts).running);
            assert!(!presumed.passed().settled(counts).running, "good once is good");
        }
    }

    #[test]
    fn only_a_running_trial_fails() {
        let trial = Trial { running: true, presumed: false, deadline_ms: 1000 };
        assert!(!trial.has_failed(999) && trial.has_failed(1000));
        assert!(!trial.passed().has_failed(5000));
        assert!(!trial.moved(6000).has_failed(5000));
        let settled = Trial { running: false, presumed: false, deadline_ms: 1000 };
        assert_eq!((settled.moved(7).due_ms(), settled.moved(7).deadline_ms), (None, 1000));
    }
}
