//! Restart policies, as a pure function.
//!
//! A run ends; [`step`] says whether another begins, and after which pause. The pause starts at 100 ms, doubles with
//! each run that ends within [`RESET_MS`] and never exceeds [`MAX_PAUSE_MS`]. A user's stop ends it all: `stop` and
//! `kill` count as such, a shutdown of the host doesn't. After a boot [`at_boot`] decides, as Docker does:
//! `on-failure` stays down then.

use bollard_stubs::models::{RestartPolicy, RestartPolicyNameEnum};

use crate::error::Error;

/// First pause, milliseconds.
pub const FIRST_PAUSE_MS: u64 = 100;
/// Longest pause, milliseconds.
pub const MAX_PAUSE_MS: u64 = 60_000;
/// A run of this length counts as a success: the pause starts afresh. Milliseconds.
pub const RESET_MS: u64 = 10_000;

/// A validated restart policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    No,
    /// Unless it ends with 0, at most so many times (`None`: any number).
    OnFailure(Option<u32>),
    /// Whatever happens, but for a user's stop; at boot always.
    Always,
    /// The same, but at boot only if no user had stopped it.
    UnlessStopped,
}

impl Policy {
    /// From the request.
    pub fn new(asked: Option<&RestartPolicy>) -> Result<Self, Error> {
        let Some(asked) = asked else { return Ok(Self::No) };
        let most = asked.maximum_retry_count.unwrap_or(0);
        let refuse = |why: &str| Err(Error::BadParameter(format!("invalid restart policy: {why}")));
        let policy = match asked.name {
            None | Some(RestartPolicyNameEnum::EMPTY | RestartPolicyNameEnum::NO) => Self::No,
            Some(RestartPolicyNameEnum::ALWAYS) => Self::Always,
            Some(RestartPolicyNameEnum::UNLESS_STOPPED) => Self::UnlessStopped,
            Some(RestartPolicyNameEnum::ON_FAILURE) => match u32::try_from(most) {
                Ok(0) => return Ok(Self::OnFailure(None)),
                Ok(most) => return Ok(Self::OnFailure(Some(most))),
                Err(_) => return refuse("maximum retry count cannot be negative"),
            },
        };
        if most != 0 {
            return refuse("maximum retry count can only be used with 'on-failure'");
        }
        Ok(policy)
    }
}

/// What is remembered between runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    /// The last pause; 0: none yet.
    pub pause_ms: u64,
    /// Restarts since a user's start.
    pub count: u32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its exit code.
    pub exit_code: i32,
    /// How long it ran, milliseconds.
    pub ran_ms: u64,
    /// A user wanted that.
    pub user_stopped: bool,
    /// The host is shutting down.
    pub shutting_down: bool,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it stays down.
    Rest,
    /// Start it after this pause, milliseconds.
    StartAfter(u64),
}

/// One run ended.
pub fn step(policy: Policy, backoff: Backoff, ended: Ended) -> (Backoff, Next) {
    let wanted = match policy {
        Policy::No => false,
        Policy::OnFailure(most) => ended.exit_code != 0 && most.is_none_or(|most| backoff.count < most),
        Policy::Always | Policy::UnlessStopped => true,
    };
    if !wanted || ended.user_stopped || ended.shutting_down {
        return (backoff, Next::Rest);
    }
    let pause_ms = if backoff.pause_ms == 0 || ended.ran_ms >= RESET_MS {
        FIRST_PAUSE_MS
    } else {
        backoff.pause_ms.saturating_mul(2).min(MAX_PAUSE_MS)
    };
    let next = Backoff { pause_ms, count: backoff.count.saturating_add(1) };
    (next, Next::StartAfter(pause_ms))
}

/// Whether a container that was started before starts again when the host has booted.
pub fn at_boot(policy: Policy, user_stopped: bool) -> bool {
    match policy {
        Policy::No | Policy::OnFailure(_) => false,
        Policy::Always => true,
        Policy::UnlessStopped => !user_stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: Ended = Ended { exit_code: 1, ran_ms: 5, user_stopped: false, shutting_down: false };

    #[test]
    fn pauses_double_up_to_a_minute_and_start_afresh_after_a_good_run() {
        let (mut backoff, mut pauses) = (Backoff::default(), Vec::new());
        for _ in 0..12 {
            let (after, next) = step(Policy::Always, backoff, FAILED);
            backoff = after;
            pauses.push(next);
        }
        assert_eq!(pauses[..3], [100, 200, 400].map(Next::StartAfter));
        assert_eq!(pauses[10..], [60_000, 60_000].map(Next::StartAfter));
        let (_, next) = step(Policy::Always, backoff, Ended { ran_ms: RESET_MS, ..FAILED });
        assert_eq!(next, Next::StartAfter(100));
    }

    #[test]
    fn on_failure_counts_and_success_ends_it() {
        let policy = Policy::OnFailure(Some(2));
        let (backoff, first) = step(policy, Backoff::default(), FAILED);
        let (backoff, second) = step(policy, backoff, FAILED);
        assert!(first != Next::Rest && second != Next::Rest);
        assert_eq!(step(policy, backoff, FAILED).1, Next::Rest);
        assert_eq!(step(policy, Backoff::default(), Ended { exit_code: 0, ..FAILED }).1, Next::Rest);
    }

    #[test]
    fn a_users_stop_and_a_shutdown_leave_it_down() {
        for ended in [Ended { user_stopped: true, ..FAILED }, Ended { shutting_down: true, ..FAILED }] {
            assert_eq!(step(Policy::Always, Backoff::default(), ended).1, Next::Rest);
        }
    }

    #[test]
    fn boot_starts_what_docker_would() {
        assert!(at_boot(Policy::Always, true));
        assert!(at_boot(Policy::UnlessStopped, false));
        assert!(!at_boot(Policy::UnlessStopped, true));
        assert!(!at_boot(Policy::OnFailure(None), false));
    }

    #[test]
    fn contradictions_are_refused() {
        let asked =
            |name, most| Policy::new(Some(&RestartPolicy { name: Some(name), maximum_retry_count: Some(most) }));
        assert!(asked(RestartPolicyNameEnum::ALWAYS, 3).is_err());
        assert!(asked(RestartPolicyNameEnum::ON_FAILURE, -1).is_err());
        assert_eq!(asked(RestartPolicyNameEnum::ON_FAILURE, 3).unwrap(), Policy::OnFailure(Some(3)));
    }
}
