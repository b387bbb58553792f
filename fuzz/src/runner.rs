//! Runs a target, and tells crashes from refusals.
//!
//! Without a compiler that counts branches, what a target says of its input stands in for coverage: an input with an
//! answer that wasn't heard before joins those that are changed further.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use crate::mutate::{Random, mutate};

/// Most inputs that are kept for further changes.
const MAX_CORPUS: usize = 512;
/// Longest that one input may take before it counts as a hang.
const MAX_INPUT_TIME: Duration = Duration::from_secs(2);
/// Longest that one input may take before the whole run is given up.
const GIVE_UP: Duration = Duration::from_secs(60);

/// Runs one input, and says how far it came.
pub type Run = Box<dyn FnMut(&[u8]) -> String>;

/// A parser under test.
#[derive(Clone)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Inputs to begin with, whole and good.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Makes what is run on each input. The answer says how far the input came. It panics where something doesn't hold
    /// that must.
    pub make: fn() -> Run,
    /// How often it is run where others are run a thousand times: lower for slow ones.
    pub share: u64,
}

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub enum Budget {
    /// So many inputs, of targets with a share of 1000.
    Execs(u64),
    /// So long.
    Time(Duration),
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Inputs that were run.
    pub execs: u64,
    /// Different answers.
    pub answers: usize,
    /// Inputs that made the target panic or hang, with what was said, one for each place.
    pub crashes: Vec<(Vec<u8>, String)>,
}

/// Runs a target. The same seed and number of inputs do the same.
pub fn run(target: &Target, seed: u64, budget: Budget) -> Outcome {
    quiet();
    let mut random = Random::new(seed);
    let mut corpus = (target.seeds)();
    let seeds = corpus.len() as u64;
    let mut go = (target.make)();
    let (mut outcome, mut answers) = (Outcome::default(), BTreeSet::new());
    let began = Instant::now();
    let progress = watch(target.name);
    loop {
        let over = match budget {
            Budget::Execs(execs) => outcome.execs >= seeds.max(execs.saturating_mul(target.share) / 1000),
            Budget::Time(time) => outcome.execs >= seeds && began.elapsed() >= time,
        };
        if over {
            break;
        }
        // The seeds themselves come first.
        let mut input =
            corpus[if outcome.execs < seeds { outcome.execs as usize } else { random.below(corpus.len()) }].clone();
        if outcome.execs >= seeds {
            let other = corpus[random.below(corpus.len())].clone();
            mutate(&mut random, &mut input, &other);
        }
        outcome.execs += 1;
        progress.store(outcome.execs, Ordering::Relaxed);
        let started = Instant::now();
        QUIET.set(true);
        let answer = panic::catch_unwind(AssertUnwindSafe(|| go(&input)));
        QUIET.set(false);
        let said = match answer {
            Ok(_) if started.elapsed() > MAX_INPUT_TIME => Some(format!("took {:?}", started.elapsed())),
            Ok(answer) => {
                if answers.insert(shape(&answer)) && corpus.len() < MAX_CORPUS {
                    corpus.push(input.clone());
                }
                None
            }
            Err(panic) => Some(words(panic.as_ref())),
        };
        if let Some(said) = said
            && !outcome.crashes.iter().any(|(_, known)| shape(known) == shape(&said))
        {
            outcome.crashes.push((input, said));
        }
    }
    progress.store(u64::MAX, Ordering::Relaxed);
    outcome.answers = answers.len();
    outcome
}

/// An answer without what differs from input to input.
fn shape(answer: &str) -> String {
    let quoted = answer.split('"').step_by(2);
    quoted.flat_map(str::chars).filter(|c| !c.is_ascii_digit()).take(80).collect()
}

fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "panic".into())
}

thread_local! {
    /// Whether this thread runs a target: its panics are reported with their input, not as they come.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                loud(info);
            }
        }));
    });
}

/// Ends the process if one input never comes to an end: nothing can be caught then.
fn watch(name: &'static str) -> Arc<AtomicU64> {
    let progress = Arc::new(AtomicU64::new(0));
    let watched = Arc::clone(&progress);
    std::thread::spawn(move || {
        let mut last = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = watched.load(Ordering::Relaxed);
            if now == u64::MAX {
                return;
            }
            if now != last.0 {
                last = (now, Instant::now());
            } else if last.1.elapsed() > GIVE_UP {
                eprintln!("{name}: input {now} of this seed doesn't come to an end");
                std::process::exit(101);
            }
        }
    });
    progress
}
