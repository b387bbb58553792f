//! Where the policy is, for people and programs.

use keel_spec::api::{AutomaticStatus, LockStatus, WindowStatus};
use keel_spec::config::{Auto, Automatic, Reboot};
use keel_spec::tuf::Time;

use super::memory::Memory;
use super::policy::{Action, Why};
use super::record::Lock;
use super::window::{self, Maintenance};

/// Where the policy is: with what it does, or waits for, now.
pub fn status(config: &Automatic, memory: &Memory, action: &Action, now: u64) -> AutomaticStatus {
    let candidate = memory.look.as_ref().and_then(|look| look.candidate.as_ref());
    let (next, next_unix_s) = match action {
        Action::Wait { until_unix_s, why } => {
            let endless = matches!(why, Why::Off | Why::Paused);
            (waiting(why), (!endless).then_some(*until_unix_s))
        }
        action => (doing(action), None),
    };
    AutomaticStatus {
        auto: config.auto.name().into(),
        reboot: config.reboot.name().into(),
        channel: config.channel.to_string(),
        pin: config.pin.as_ref().map(ToString::to_string),
        host_id: memory.host_id.clone(),
        paused_unix_s: memory.record.paused_unix_s,
        candidate: candidate.map(|candidate| candidate.version.clone()),
        wave_unix_s: candidate.and_then(|candidate| candidate.wave_unix_s).filter(|at| *at > 0),
        window: window(config, now),
        lock: lock(config, memory),
        next,
        next_unix_s,
        looked_unix_s: Some(memory.looked_unix_s).filter(|at| *at > 0),
        problem: memory.problem.clone().filter(|_| config.auto != Auto::Off || memory.record.lock != Lock::Free),
        outcomes_waiting: u32::try_from(memory.record.outcomes.len()).unwrap_or(u32::MAX),
    }
}

fn window(config: &Automatic, now: u64) -> Option<WindowStatus> {
    if config.reboot != Reboot::Window {
        return None;
    }
    Some(match window::at(&config.windows, now) {
        Maintenance::Open { until_unix_s } => WindowStatus { open: true, until_unix_s: Some(until_unix_s) },
        Maintenance::Closed { opens_unix_s } => WindowStatus { open: false, until_unix_s: opens_unix_s },
    })
}

/// The lock that may be held, or else the one that would be asked for.
fn lock(config: &Automatic, memory: &Memory) -> Option<LockStatus> {
    let lock = &memory.record.lock;
    let place = lock.place().or(config.fleetlock.as_ref())?;
    let (state, since_unix_s) = match lock {
        Lock::Free => ("free", None),
        Lock::Asked(_) => ("asked", None),
        Lock::Held { since_unix_s, .. } => ("held", Some(*since_unix_s)),
    };
    Some(LockStatus { url: place.url.clone(), group: place.group.clone(), state: state.into(), since_unix_s })
}

fn waiting(why: &Why) -> String {
    let at = |unix_s: &Option<u64>| unix_s.map_or("not announced".to_owned(), |unix_s| Time(unix_s).for_people());
    match why {
        Why::Off => "nothing: update.auto is \"off\"".into(),
        Why::Paused => "nothing: paused; `keelctl update resume` lets it go on".into(),
        Why::Trial => "the end of the trial".into(),
        Why::NothingNewer => "look for a newer release".into(),
        Why::RolledBack(version) => format!("a restart into {version}, which an operator rolled back to"),
        Why::Found(version) => format!("somebody to install {version}: `keelctl update install`"),
        Why::Wave(version, unix_s) => format!("write {version} when this host's wave comes: {}", at(unix_s)),
        Why::Staged(version) => format!("somebody to install {version}, which is written: `keelctl update install`"),
        Why::OnDemand(version) => format!("somebody to restart into {version}, which is installed: `keelctl reboot`"),
        Why::Window(version, unix_s) => format!("restart into {version} in the next window: {}", at(unix_s)),
        Why::Lock(version) => format!("restart into {version} when the lock is free"),
        Why::Again(version) => format!("try {version} again"),
        Why::GaveUp(version) => format!("a release newer than {version}, which restarts didn't lead to"),
        Why::Stale(version) => format!("go on with {version} when the repository's metadata can be had"),
        Why::Restarting(version) => format!("the restart into {version}"),
    }
}

fn doing(action: &Action) -> String {
    match action {
        Action::Wait { why, .. } => waiting(why),
        Action::Look => "looking for a newer release".into(),
        Action::Stage(version) => format!("writing {version}"),
        Action::Install(version) => format!("installing {version}"),
        Action::TakeBack(version, why) => format!("taking {version} back: {why}"),
        Action::Ask(lock) => format!("asking {} for leave to restart", lock.url),
        Action::GiveBack(lock) => format!("giving {} the leave to restart back", lock.url),
        Action::Restart(version) => format!("restarting into {version}"),
        Action::Tell(outcome) => format!("reporting the outcome of {}", outcome.version),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::look::{Candidate, Look};

    #[test]
    fn a_status_says_what_is_next_and_when() {
        let config = Automatic { auto: Auto::Install, ..Automatic::default() };
        let mut memory = Memory { host_id: "h".into(), ..Memory::default() };
        let version: keel_spec::release::Version = "2.0.0".parse().unwrap();
        let candidate = Some(Candidate { version: version.clone(), wave_unix_s: Some(86_400) });
        memory.look = Some(Look { candidate, recalled: Vec::new() });
        let action = Action::Wait { until_unix_s: 7, why: Why::Wave(version, Some(86_400)) };
        let status = status(&config, &memory, &action, 5);
        assert!(status.next.contains("2.0.0") && status.next.contains("1970-01-02 00:00"), "{}", status.next);
        assert_eq!((status.next_unix_s, status.wave_unix_s, status.window), (Some(7), Some(86_400), None));
    }
}
