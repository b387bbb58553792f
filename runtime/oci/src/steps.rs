//! Where time goes, for `--debug`: marks at the ends of steps, by the monotonic clock, which parent and child share. Off, a
//! mark costs the reading of one flag.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::time::ClockId;

/// Most marks that are kept.
const MAX_MARKS: usize = 1024;

static ON: AtomicBool = AtomicBool::new(false);
static MARKS: Mutex<Vec<Mark>> = Mutex::new(Vec::new());

/// A step and its end in nanoseconds.
pub(crate) type Mark = (String, u64);

/// Begins to take marks; `step` is what is over by then.
pub(crate) fn begin(step: &str) {
    ON.store(true, Ordering::Relaxed);
    mark(step);
}

/// Whether marks are taken.
pub(crate) fn are_taken() -> bool {
    ON.load(Ordering::Relaxed)
}

/// The end of a step.
pub(crate) fn mark(step: &str) {
    if are_taken() {
        let now = rustix::time::clock_gettime(ClockId::Monotonic);
        add(vec![(step.to_owned(), now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)]);
    }
}

/// Adds those of a child.
pub(crate) fn add(more: Vec<Mark>) {
    let mut marks = MARKS.lock().unwrap_or_else(PoisonError::into_inner);
    let room = MAX_MARKS - marks.len().min(MAX_MARKS);
    marks.extend(more.into_iter().take(room));
}

/// Takes them all.
pub(crate) fn take() -> Vec<Mark> {
    std::mem::take(&mut *MARKS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Steps and the nanoseconds from the mark before to theirs, in the order of their ends. Of steps that run beside each other,
/// each is charged from the end of whichever ended before it.
pub(crate) fn durations(mut marks: Vec<Mark>) -> Vec<Mark> {
    marks.sort_by_key(|(_, at)| *at);
    marks.windows(2).map(|pair| (pair[1].0.clone(), pair[1].1 - pair[0].1)).collect()
}

#[cfg(test)]
mod tests {
    use super::durations;

    #[test]
    fn a_step_takes_from_the_mark_before_to_its_own() {
        let marks = [("clone", 30), ("", 10), ("inside: root", 50), ("set up", 60)].map(|(n, at)| (n.to_owned(), at));
        let expected = [("clone", 20), ("inside: root", 20), ("set up", 10)].map(|(n, at)| (n.to_owned(), at));
        assert_eq!(durations(marks.to_vec()), expected);
    }
}
