//! Which containers should run, and what is wrong with those that do not: what a release on trial is judged by.

use keel_spec::api::expected::ExpectedContainer;

use crate::container::Container;
use crate::declared::drive::is_declared;
use crate::disk::{Phase, State};
use crate::engine::Engine;
use crate::health::{Check, Health, Status};
use crate::restart::Policy;

/// Most characters of a failure's words.
const MAX_WORDS: usize = 160;

impl Engine {
    /// All containers that should run, by name; with those that are declared and couldn't be made.
    pub fn expected(&self) -> Vec<ExpectedContainer> {
        let mut found: Vec<ExpectedContainer> =
            self.all().iter().filter_map(|container| self.expect(container)).collect();
        let missing = self.declared_open.missing().into_iter();
        let missing = missing.filter(|(name, _)| !found.iter().any(|container| container.name == *name));
        let missing: Vec<_> = missing.map(|(name, why)| absent(name, &why)).collect();
        found.extend(missing);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    fn expect(&self, container: &Container) -> Option<ExpectedContainer> {
        let (config, state) = (container.config(), container.state());
        let asked = config.body.host_config.as_ref().and_then(|host| host.restart_policy.as_ref());
        // One that the machine config declares is to run, even if it never did.
        let phase = if is_declared(container) { Phase::Exited } else { state.phase };
        if !should_run(Policy::new(asked).unwrap_or(Policy::No), phase, state.user_stopped) {
            return None;
        }
        // A check that has no result yet counts as much as one that is failing.
        let checked = matches!(Check::new(&config.body), Ok(Some(_)));
        let health = checked.then(|| container.live().health.clone().unwrap_or_default());
        let problem = match state.boot_id == self.boot_id {
            true => problem(&state, health.as_ref()),
            false => Some("was not started since the host booted".into()),
        };
        Some(ExpectedContainer {
            id: config.id.clone(),
            name: config.name.clone(),
            problem,
            started_unix_ms: state.started_unix_ms,
        })
    }
}

/// One that is declared and isn't there.
fn absent(name: String, why: &str) -> ExpectedContainer {
    let problem = Some(format!("is not made yet: {}", cut(why)).trim_end_matches([':', ' ']).to_owned());
    ExpectedContainer { id: String::new(), name, problem, started_unix_ms: None }
}

fn cut(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(MAX_WORDS).collect()
}

fn should_run(policy: Policy, phase: Phase, user_stopped: bool) -> bool {
    let kept_up = matches!(policy, Policy::Always | Policy::UnlessStopped);
    kept_up && !user_stopped && !matches!(phase, Phase::Created | Phase::Removing)
}

fn problem(state: &State, health: Option<&Health>) -> Option<String> {
    let ended = || match state.error.as_str() {
        "" => format!("ended with code {}", state.exit_code),
        error => format!("could not be started: {}", cut(error)),
    };
    match state.phase {
        Phase::Running => match health.map(|health| (health.status, health.results.back())) {
            None | Some((Status::Healthy, _)) => None,
            Some((Status::Starting, _)) => Some("is not healthy yet".into()),
            Some((Status::Unhealthy, last)) => {
                let said = cut(last.map_or("", |outcome| outcome.output.as_str()));
                Some(format!("is unhealthy: {said}").trim_end_matches([':', ' ']).into())
            }
        },
        Phase::Restarting => Some(format!("{} and is started again", ended())),
        Phase::Created | Phase::Starting => Some("is being started".into()),
        Phase::Exited | Phase::Removing => Some(ended()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Outcome;

    fn state(phase: Phase) -> State {
        State { phase, exit_code: 3, ..State::default() }
    }

    fn health(status: Status) -> Health {
        let output = "no\n  answer\n".to_owned();
        let outcome = Outcome { start_unix_ns: 0, end_unix_ns: 0, exit_code: 1, output };
        Health { status, failing_streak: 0, results: [outcome].into() }
    }

    #[test]
    fn only_what_is_kept_up_and_was_not_stopped_should_run() {
        assert!(should_run(Policy::Always, Phase::Exited, false));
        assert!(should_run(Policy::UnlessStopped, Phase::Running, false));
        assert!(!should_run(Policy::Always, Phase::Created, false), "it never ran");
        assert!(!should_run(Policy::OnFailure(None), Phase::Running, false));
        assert!(!should_run(Policy::Always, Phase::Exited, true), "a user stopped it");
    }

    #[test]
    fn what_is_wrong_is_told_in_words() {
        let told = |phase, status: Option<Status>| problem(&state(phase), status.map(health).as_ref());
        assert_eq!(told(Phase::Running, None), None);
        assert_eq!(told(Phase::Running, Some(Status::Healthy)), None);
        assert_eq!(told(Phase::Running, Some(Status::Starting)).unwrap(), "is not healthy yet");
        assert_eq!(told(Phase::Running, Some(Status::Unhealthy)).unwrap(), "is unhealthy: no answer");
        assert_eq!(told(Phase::Restarting, None).unwrap(), "ended with code 3 and is started again");
        assert_eq!(told(Phase::Exited, None).unwrap(), "ended with code 3");
        let failed = State { error: "no such image".into(), ..state(Phase::Restarting) };
        assert!(problem(&failed, None).unwrap().starts_with("could not be started: no such image"));
    }
}
