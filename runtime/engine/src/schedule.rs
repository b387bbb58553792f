//! What is done later or in the background: restarts after their pause, removals of `--rm`.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Most jobs done at the same time: starts wait for the disk mostly.
pub const MAX_PARALLEL: usize = 4;

/// One job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Job {
    /// Start the container with this ID, if it still waits for that.
    Start(String),
    /// Check the health of the container with this ID, if the run after so many ended ones still goes on.
    Check(String, u64),
    /// Remove the container with this ID and its anonymous volumes.
    Remove(String),
}

/// Jobs by the time at which they are due.
#[derive(Clone, Default)]
pub struct Schedule(Arc<(Mutex<Waiting>, Condvar)>);

#[derive(Default)]
struct Waiting {
    jobs: BTreeMap<(Instant, u64), Job>,
    count: u64,
    stopped: bool,
}

impl Schedule {
    /// Has `job` done at `due`.
    pub fn add(&self, due: Instant, job: Job) {
        let mut waiting = self.lock();
        waiting.count += 1;
        let key = (due, waiting.count);
        waiting.jobs.insert(key, job);
        self.0.1.notify_all();
    }

    /// Ends [`Schedule::next`].
    pub fn stop(&self) {
        self.lock().stopped = true;
        self.0.1.notify_all();
    }

    /// Waits for jobs that are due, at most [`MAX_PARALLEL`]; empty: stopped.
    pub fn next(&self) -> Vec<Job> {
        let mut waiting = self.lock();
        loop {
            if waiting.stopped {
                return Vec::new();
            }
            let now = Instant::now();
            let due = take_due(&mut waiting.jobs, now);
            if !due.is_empty() {
                return due;
            }
            let first = waiting.jobs.keys().next().map(|(due, _)| *due);
            waiting = match first {
                None => self.0.1.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                Some(due) => {
                    let pause = due.saturating_duration_since(now);
                    self.0.1.wait_timeout(waiting, pause).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes at most [`MAX_PARALLEL`] jobs that are due at `now`.
fn take_due(jobs: &mut BTreeMap<(Instant, u64), Job>, now: Instant) -> Vec<Job> {
    let mut due = Vec::new();
    while due.len() < MAX_PARALLEL {
        match jobs.first_entry() {
            Some(first) if first.key().0 <= now => due.push(first.remove()),
            _ => break,
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn jobs_come_when_due_in_order_and_bounded() {
        let now = Instant::now();
        let mut jobs = BTreeMap::new();
        for number in 0..6_u64 {
            jobs.insert((now + Duration::from_secs(number), number), Job::Start(number.to_string()));
        }
        assert_eq!(take_due(&mut jobs, now), [Job::Start("0".into())]);
        assert_eq!(take_due(&mut jobs, now + Duration::from_secs(9)).len(), MAX_PARALLEL);
        assert_eq!(jobs.len(), 1);
    }
}
