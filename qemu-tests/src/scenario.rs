//! Runs scenarios side by side and counts them.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;

use crate::build::Build;

/// One thing that is tested end to end.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name, and that of its folder under `build/tests/`.
    pub name: &'static str,
    /// What it shows.
    pub about: &'static str,
    /// Runs it.
    pub run: fn(&Build) -> Result<()>,
}

/// Runs all, `at_once` at a time, and prints a line for each. Returns how many passed and failed.
pub fn run_all(build: &Build, scenarios: &[Scenario], at_once: usize) -> (usize, usize) {
    let queue: Mutex<VecDeque<Scenario>> = Mutex::new(scenarios.iter().copied().collect());
    let (passed, failed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, 8) {
            scope.spawn(|| {
                while let Some(scenario) = next(&queue) {
                    let begun = Instant::now();
                    let result = (scenario.run)(build);
                    let seconds = begun.elapsed().as_secs();
                    match result {
                        Ok(()) => {
                            passed.fetch_add(1, Ordering::Relaxed);
                            println!("ok      {} ({seconds} s): {}", scenario.name, scenario.about);
                        }
                        Err(error) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("FAILED  {} ({seconds} s): {}\n{error:#}\n", scenario.name, scenario.about);
                        }
                    }
                }
            });
        }
    });
    (passed.into_inner(), failed.into_inner())
}

fn next(queue: &Mutex<VecDeque<Scenario>>) -> Option<Scenario> {
    queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front()
}
