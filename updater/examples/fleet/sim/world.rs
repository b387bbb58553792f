//! What is around the hosts: a repository, a lock server, a collector, and a publisher who looks at it.

use std::collections::BTreeMap;

use keel_spec::release::Version;
use keel_spec::rollout::{ALL, Channel, Step, Waves};
use keel_spec::tuf::Time;
use keel_updater::rollout::look::{Candidate, Look};
use keel_updater::rollout::report::Outcome;
use keel_updater::rollout::wave;

use super::population::Host;

/// How often the publisher looks at the collector, in seconds.
const PUBLISHER_EVERY_S: u64 = 300;
/// Failures that are no accident.
const ENOUGH_FAILURES: u64 = 3;

/// What is around the hosts.
pub struct World {
    /// When it all begins.
    pub start: u64,
    /// Locks.
    pub locks: Locks,
    /// Releases, the oldest first.
    releases: Vec<Release>,
    /// Of how many hosts out of ten thousand the first release is bad on.
    bad_on: u32,
    /// Whether the publisher withdraws a release that fails.
    halts: bool,
    next_look: u64,
    /// Outcomes of the first release: good and bad.
    pub outcomes: (u64, u64),
}

struct Release {
    version: Version,
    published: u64,
    waves: Waves,
    withdrawn: Option<u64>,
}

impl World {
    /// A bad release at the start, and a good one so many seconds later.
    pub fn new(start: u64, bad_on: u32, halts: bool, fix_after_s: u64) -> Self {
        let steps = [(0, 100), (4 * 60, 1000), (24 * 60, 5000), (48 * 60, ALL)];
        let steps: Vec<Step> = steps.map(|(after_min, parts)| Step { after_min, parts }).into();
        let release = |text: &str, published: u64| Release {
            version: text.parse().unwrap_or_else(|error| panic!("{error}")),
            published,
            waves: Waves { start: Time(published), seed: text.into(), steps: steps.clone() },
            withdrawn: None,
        };
        let releases = vec![release("2.0.0", start + 3600), release("2.0.1", start + fix_after_s)];
        Self { start, locks: Locks::default(), releases, bad_on, halts, next_look: start, outcomes: (0, 0) }
    }

    /// The release that is bad on some hosts.
    pub fn bad_version(&self) -> &Version {
        &self.releases[0].version
    }

    /// The release that all hosts should have in the end.
    pub fn last(&self) -> &Version {
        &self.releases[self.releases.len() - 1].version
    }

    /// When the bad release was withdrawn.
    pub fn withdrawn_at(&self) -> Option<u64> {
        self.releases[0].withdrawn
    }

    /// Whether a release was withdrawn by then.
    pub fn is_withdrawn(&self, version: &Version, by: u64) -> bool {
        self.releases.iter().any(|it| it.version == *version && it.withdrawn.is_some_and(|at| at <= by))
    }

    /// Whether a release fails on a host: always on the same ones.
    pub fn fails_on(&self, version: &Version, host_id: &str) -> bool {
        version == self.bad_version() && wave::place("bad", host_id) < self.bad_on
    }

    /// Time passes: the publisher looks at the collector now and then.
    pub fn pass(&mut self, now: u64) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + PUBLISHER_EVERY_S;
        let (good, bad) = self.outcomes;
        let release = &mut self.releases[0];
        if self.halts && bad >= ENOUGH_FAILURES && bad * 200 >= good + bad && release.withdrawn.is_none() {
            release.withdrawn = Some(now);
        }
    }

    /// A host tells an outcome.
    pub fn hear(&mut self, outcome: &Outcome) {
        if outcome.version == *self.bad_version() {
            self.outcomes.0 += u64::from(outcome.good);
            self.outcomes.1 += u64::from(!outcome.good);
        }
    }

    /// What the updater's own look finds: the newest whose wave has come, or else the newest.
    pub fn look(&self, host: &Host, now: u64) -> Look {
        let known_bad = |version: &Version| host.bad.iter().any(|bad| bad.version == *version);
        let stable = Channel::default();
        let is_for = |release: &&Release| {
            release.published <= now
                && release.withdrawn.is_none()
                && release.version > host.running
                && !known_bad(&release.version)
                && host.config.channel == stable
        };
        let candidates = self.releases.iter().rev().filter(is_for).map(|release| Candidate {
            version: release.version.clone(),
            wave_unix_s: wave::time(&release.waves, &host.id),
        });
        let candidates: Vec<Candidate> = candidates.collect();
        let due = candidates.iter().find(|candidate| candidate.wave_unix_s.is_some_and(|at| at <= now));
        let withdrawn = host.next_boot != host.running && self.is_withdrawn(&host.next_boot, now);
        let recalled = withdrawn.then(|| (host.next_boot.clone(), "withdrawn".to_owned()));
        Look { candidate: due.or(candidates.first()).cloned(), recalled: recalled.into_iter().collect() }
    }
}

/// A lock server: one host of a group at a time.
#[derive(Default)]
pub struct Locks(BTreeMap<String, usize>);

impl Locks {
    /// Takes a group's lock, or has it already.
    pub fn take(&mut self, group: &str, host: usize) -> bool {
        *self.0.entry(group.into()).or_insert(host) == host
    }

    /// Gives it back; not an error for others.
    pub fn give_back(&mut self, group: &str, host: usize) {
        if self.holds(group, host) {
            self.0.remove(group);
        }
    }

    /// Whether a host holds a group's lock.
    pub fn holds(&self, group: &str, host: usize) -> bool {
        self.0.get(group) == Some(&host)
    }

    /// How many are held.
    pub fn held(&self) -> u64 {
        self.0.len() as u64
    }
}
