//! When a release on trial has proved itself.
//!
//! Everything has to be good for `settle_s` without a break, and that has to be reached before `within_s` after boot.
//! A break starts the settling anew. Whoever runs the gate observes about once a second and hands in what is wrong.

use keel_spec::config::Health;
use keel_spec::control::{Service, ServiceState};

/// Pause between two observations, in milliseconds.
pub const OBSERVE_EVERY_MS: u64 = 500;

/// The gate's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Something is wrong.
    Waiting,
    /// Everything has been good since this many milliseconds after boot.
    Settling {
        /// Since when.
        since_ms: u64,
    },
}

/// What follows from an observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Observe again.
    Wait,
    /// The release is good.
    Passed,
    /// It isn't, for this reason.
    Failed(String),
}

impl Gate {
    /// One observation at `now_ms` milliseconds after boot, with all that is wrong.
    pub fn step(self, health: &Health, now_ms: u64, wrong: &[String]) -> (Self, Verdict) {
        let deadline_ms = u64::from(health.within_s) * 1000;
        let late = now_ms >= deadline_ms;
        match (self, wrong) {
            (_, [first, rest @ ..]) => {
                let verdict = match late {
                    true => Verdict::Failed(failed(first, rest, health.within_s)),
                    false => Verdict::Wait,
                };
                (Self::Waiting, verdict)
            }
            (Self::Waiting, []) if late => {
                let why = format!("not good without a break for {} s within {} s", health.settle_s, health.within_s);
                (Self::Waiting, Verdict::Failed(why))
            }
            (gate, []) => {
                let since_ms = match gate {
                    Self::Waiting => now_ms,
                    Self::Settling { since_ms } => since_ms,
                };
                let settled = now_ms.saturating_sub(since_ms) >= u64::from(health.settle_s) * 1000;
                // What began to be good in time may finish settling.
                (Self::Settling { since_ms }, if settled { Verdict::Passed } else { Verdict::Wait })
            }
        }
    }
}

fn failed(first: &str, rest: &[String], within_s: u32) -> String {
    match rest.len() {
        0 => format!("{first} within {within_s} s"),
        more => format!("{first} within {within_s} s, and {more} more: {}", rest.join("; ")),
    }
}

/// What is wrong with the services: those that are required and not up.
pub fn services_wrong(services: &[Service]) -> Vec<String> {
    if services.is_empty() {
        return vec!["no service known".into()];
    }
    let down = services.iter().filter(|service| service.required && service.state != ServiceState::Up);
    down.map(|service| format!("service {} not up", service.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTH: Health = Health {
        within_s: 60,
        settle_s: 5,
        network: true,
        containers: true,
        ignore_containers: Vec::new(),
        checks: Vec::new(),
    };

    fn run(observations: &[(u64, &[&str])]) -> Verdict {
        let mut gate = Gate::Waiting;
        for (now_ms, wrong) in observations {
            let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
            let verdict;
            (gate, verdict) = gate.step(&HEALTH, *now_ms, &wrong);
            if verdict != Verdict::Wait {
                return verdict;
            }
        }
        Verdict::Wait
    }

    #[test]
    fn good_for_long_enough_passes() {
        assert_eq!(run(&[(1000, &["x"]), (2000, &[]), (6999, &[])]), Verdict::Wait);
        assert_eq!(run(&[(1000, &["x"]), (2000, &[]), (7000, &[])]), Verdict::Passed);
    }

    #[test]
    fn a_break_starts_the_settling_anew() {
        assert_eq!(run(&[(2000, &[]), (6000, &["x"]), (6500, &[]), (8000, &[])]), Verdict::Wait);
    }

    #[test]
    fn what_is_still_wrong_at_the_deadline_is_named() {
        let Verdict::Failed(why) = run(&[(59_000, &[]), (60_000, &["service runtime not up"])]) else { panic!() };
        assert_eq!(why, "service runtime not up within 60 s");
    }

    #[test]
    fn what_began_to_be_good_in_time_may_settle_but_nothing_begins_late() {
        assert_eq!(run(&[(58_000, &[]), (63_000, &[])]), Verdict::Passed);
        assert!(matches!(run(&[(58_000, &["x"]), (60_500, &[])]), Verdict::Failed(_)));
    }
}
