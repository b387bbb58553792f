//! A short run of every target, the same each time; and that the runner finds what it is there for.

use keel_fuzz::runner::{self, Budget, Target};
use keel_fuzz::targets;

#[test]
fn no_parser_crashes_in_a_short_run() {
    for target in targets::all() {
        let outcome = runner::run(&target, 1, Budget::Execs(3000));
        assert!(outcome.execs >= 3 * target.share, "{}: {} inputs", target.name, outcome.execs);
        assert!(outcome.answers >= 2, "{}: every input had the same answer", target.name);
        let crashes: Vec<_> =
            outcome.crashes.iter().map(|(input, said)| (String::from_utf8_lossy(input), said)).collect();
        assert!(crashes.is_empty(), "{}: {crashes:?}", target.name);
    }
}

#[test]
fn good_inputs_are_accepted_before_they_are_changed() {
    let mut bad = Vec::new();
    for target in targets::all() {
        let mut go = (target.make)();
        let answers: Vec<String> = (target.seeds)().iter().map(|seed| go(seed)).collect();
        let good = |answer: &String| ["accepted", "true", "status"].iter().any(|word| answer.contains(word));
        if !answers.iter().any(good) {
            bad.push((target.name, answers));
        }
    }
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn a_planted_fault_is_found_and_the_same_seed_finds_the_same() {
    let target = Target {
        name: "planted",
        seeds: || vec![b"{\"length\": 12}".to_vec()],
        make: || {
            Box::new(|bytes| {
                let text = String::from_utf8_lossy(bytes);
                assert!(!text.contains("4294967295"), "a length that is too long");
                text.contains('[').to_string()
            })
        },
        share: 1000,
    };
    let run = || runner::run(&target, 7, Budget::Execs(20_000));
    let (first, second) = (run(), run());
    assert_eq!(first.crashes.len(), 1);
    assert_eq!(first.crashes, second.crashes);
}
