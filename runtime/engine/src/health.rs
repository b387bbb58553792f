//! Health checks, as pure functions.
//!
//! A check is run again and again while its container runs; [`step`] says what one result makes of the health.
//! It begins as `starting`. The first success makes it `healthy`; as many failures in a row as `retries` make it
//! `unhealthy`, but failures within the start period don't count as long as it is `starting`.

use std::collections::VecDeque;
use std::time::Duration;

use bollard_stubs::models::{ContainerCreateBody, Health as Told, HealthConfig, HealthcheckResult};
use keel_store::Healthcheck;

use crate::clock;
use crate::error::Error;
use crate::plan::bad;

/// Between two checks, and for one, unless it is said otherwise (Docker's).
const DEFAULT_PERIOD: Duration = Duration::from_secs(30);
/// Between two checks within the start period, unless it is said otherwise.
const DEFAULT_START_INTERVAL: Duration = Duration::from_secs(5);
/// Failures in a row, unless it is said otherwise.
const DEFAULT_RETRIES: u32 = 3;
/// Shortest time that may be asked for.
const SHORTEST: Duration = Duration::from_millis(1);
/// Results that are remembered.
const MAX_RESULTS: usize = 5;
/// Most bytes of a check's output that are remembered.
pub const MAX_OUTPUT_BYTES: usize = 4096;

/// How a container's health is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The command.
    pub words: Vec<String>,
    /// Between the end of a check and the next.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// For starting up.
    pub start_period: Duration,
    /// In place of `interval` while it starts up.
    pub start_interval: Duration,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

impl Check {
    /// From a request with the image's settings in it; `None`: no check is wanted.
    pub fn new(body: &ContainerCreateBody) -> Result<Option<Self>, Error> {
        let Some(asked) = &body.healthcheck else { return Ok(None) };
        let time = |name: &str, value: Option<i64>, default: Duration| match value {
            None | Some(0) => Ok(default),
            Some(ns) => match u64::try_from(ns).map(Duration::from_nanos) {
                Ok(time) if time >= SHORTEST => Ok(time),
                _ => bad(format!("{name} in Healthcheck cannot be less than 1ms")),
            },
        };
        let retries = match asked.retries {
            None | Some(0) => DEFAULT_RETRIES,
            Some(number) => u32::try_from(number).or_else(|_| bad("Retries in Healthcheck cannot be negative"))?,
        };
        let test = asked.test.as_deref().unwrap_or_default();
        let words = match test.split_first() {
            None => return Ok(None),
            Some((kind, words)) => match (kind.as_str(), words) {
                ("NONE", _) | ("CMD" | "CMD-SHELL", []) => return Ok(None),
                ("CMD", words) => words.to_vec(),
                ("CMD-SHELL", [line, ..]) => {
                    let shell = body.shell.clone().filter(|shell| !shell.is_empty());
                    let mut words = shell.unwrap_or_else(|| vec!["/bin/sh".into(), "-c".into()]);
                    words.push(line.clone());
                    words
                }
                (other, _) => return bad(format!("Unknown type in Healthcheck: {other:.40}")),
            },
        };
        Ok(Some(Self {
            words,
            interval: time("Interval", asked.interval, DEFAULT_PERIOD)?,
            timeout: time("Timeout", asked.timeout, DEFAULT_PERIOD)?,
            start_period: time("StartPeriod", asked.start_period, Duration::ZERO)?,
            start_interval: time("StartInterval", asked.start_interval, DEFAULT_START_INTERVAL)?,
            retries,
        }))
    }

    /// The pause before the next check of a container that has run for `ran`.
    pub fn pause(&self, health: &Health, ran: Duration) -> Duration {
        if health.status == Status::Starting && ran < self.start_period {
            self.start_interval.min(self.interval)
        } else {
            self.interval
        }
    }
}

/// The image's check below the client's, whose zeroes mean "as the image has it".
pub fn merge(body: &mut ContainerCreateBody, image: Option<&Healthcheck>) {
    let Some(image) = image.filter(|image| !image.test.is_empty()) else { return };
    let asked = body.healthcheck.get_or_insert_with(HealthConfig::default);
    if asked.test.as_ref().is_none_or(Vec::is_empty) {
        asked.test = Some(image.test.clone());
    }
    for (asked, image) in [
        (&mut asked.interval, image.interval),
        (&mut asked.timeout, image.timeout),
        (&mut asked.start_period, image.start_period),
        (&mut asked.start_interval, image.start_interval),
        (&mut asked.retries, image.retries),
    ] {
        if asked.unwrap_or(0) == 0 {
            *asked = Some(image);
        }
    }
}

/// How a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// It isn't known yet.
    #[default]
    Starting,
    /// Well.
    Healthy,
    /// Not well.
    Unhealthy,
}

impl Status {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One check's result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Nanoseconds since the Unix epoch.
    pub start_unix_ns: u64,
    /// The same.
    pub end_unix_ns: u64,
    /// The command's; -1: it took too long, or couldn't be run.
    pub exit_code: i32,
    /// What it said.
    pub output: String,
}

/// What is known of a container's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// How it is.
    pub status: Status,
    /// Failures in a row.
    pub failing_streak: u32,
    /// The last results, oldest first.
    pub results: VecDeque<Outcome>,
}

/// One check of a container that has run for `ran` has ended.
pub fn step(health: Health, check: &Check, outcome: Outcome, ran: Duration) -> Health {
    let Health { mut status, mut failing_streak, mut results } = health;
    if outcome.exit_code == 0 {
        (status, failing_streak) = (Status::Healthy, 0);
    } else if status != Status::Starting || ran >= check.start_period {
        failing_streak = failing_streak.saturating_add(1);
        if failing_streak >= check.retries {
            status = Status::Unhealthy;
        }
    }
    results.push_back(outcome);
    while results.len() > MAX_RESULTS {
        results.pop_front();
    }
    Health { status, failing_streak, results }
}

impl Health {
    /// As the API tells it.
    pub fn told(&self) -> Told {
        let result = |outcome: &Outcome| HealthcheckResult {
            start: Some(clock::rfc3339(outcome.start_unix_ns)),
            end: Some(clock::rfc3339(outcome.end_unix_ns)),
            exit_code: Some(outcome.exit_code.into()),
            output: Some(outcome.output.clone()),
        };
        Told {
            status: self.status.name().parse().ok(),
            failing_streak: Some(self.failing_streak.into()),
            log: Some(self.results.iter().map(result).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<Option<Check>, Error> {
        Check::new(&serde_json::from_str(&format!(r#"{{"Healthcheck":{json}}}"#)).unwrap())
    }

    fn outcome(exit_code: i32) -> Outcome {
        Outcome { start_unix_ns: 1, end_unix_ns: 2, exit_code, output: String::new() }
    }

    #[test]
    fn failures_in_a_row_make_it_unhealthy_and_one_success_healthy() {
        let check = check(r#"{"Test":["CMD","true"],"Retries":2,"StartPeriod":10000000000}"#).unwrap().unwrap();
        let (early, late) = (Duration::from_secs(1), Duration::from_secs(11));
        let mut health = Health::default();
        for _ in 0..9 {
            health = step(health, &check, outcome(1), early);
        }
        assert_eq!((health.status, health.failing_streak, health.results.len()), (Status::Starting, 0, MAX_RESULTS));
        health = step(health, &check, outcome(1), late);
        assert_eq!(health.status, Status::Starting);
        health = step(health, &check, outcome(-1), late);
        assert_eq!((health.status, health.failing_streak), (Status::Unhealthy, 2));
        health = step(health, &check, outcome(0), late);
        assert_eq!((health.status, health.failing_streak), (Status::Healthy, 0));
        // Once it was well, failures count even within the start period.
        health = step(health, &check, outcome(1), early);
        assert_eq!(health.failing_streak, 1);
    }

    #[test]
    fn checks_are_read_and_refused_as_dockers() {
        assert_eq!(check(r#"{"Test":["NONE"]}"#).unwrap(), None);
        assert_eq!(check("{}").unwrap(), None);
        let shell = check(r#"{"Test":["CMD-SHELL","a b"],"Interval":5000000}"#).unwrap().unwrap();
        assert_eq!((shell.words.as_slice(), shell.retries), (&["/bin/sh".into(), "-c".into(), "a b".into()][..], 3));
        assert_eq!(shell.pause(&Health::default(), Duration::ZERO), Duration::from_millis(5));
        for wrong in
            [r#"{"Test":["X","y"]}"#, r#"{"Test":["CMD","y"],"Timeout":5}"#, r#"{"Test":["CMD","y"],"Retries":-1}"#]
        {
            assert!(check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_the_client_leaves_out_is_the_images() {
        let image = Healthcheck { test: vec!["CMD".into(), "x".into()], interval: 7, retries: 9, ..Default::default() };
        let mut body: ContainerCreateBody = serde_json::from_str(r#"{"Healthcheck":{"Retries":2}}"#).unwrap();
        merge(&mut body, Some(&image));
        let merged = body.healthcheck.unwrap();
        assert_eq!((merged.test.unwrap()[1].as_str(), merged.interval, merged.retries), ("x", Some(7), Some(2)));
        let mut none: ContainerCreateBody = serde_json::from_str(r#"{"Healthcheck":{"Test":["NONE"]}}"#).unwrap();
        merge(&mut none, Some(&image));
        assert_eq!(Check::new(&none).unwrap(), None);
    }
}
