//! Runs the scenarios: `keel-scenarios [--list] [--at-once N] [NAME-PART...]`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use keel_qemu_tests::build::Build;
use keel_qemu_tests::scenario::{Scenario, run_all};
use keel_qemu_tests::scenarios::{BY_NAME, SCENARIOS, prepare_releases};

/// Machines that run at a time: one more than the processors of the least workstation, since guests wait a lot.
const AT_ONCE: usize = 3;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("keel-scenarios: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let mut at_once = AT_ONCE;
    let mut parts = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => {
                SCENARIOS.iter().chain(BY_NAME).for_each(|scenario| println!("{}: {}", scenario.name, scenario.about));
                return Ok(true);
            }
            "--at-once" => at_once = arguments.next().context("--at-once wants a number")?.parse()?,
            _ => parts.push(argument),
        }
    }
    let by_name = if parts.is_empty() { &[] } else { BY_NAME };
    let chosen: Vec<Scenario> = SCENARIOS
        .iter()
        .chain(by_name)
        .filter(|scenario| parts.is_empty() || parts.iter().any(|part| scenario.name.contains(part.as_str())))
        .copied()
        .collect();
    anyhow::ensure!(!chosen.is_empty(), "no scenario is named like {parts:?}; --list shows them");
    let build = Build::here()?;
    prepare_releases(&build, &[])?;
    let (passed, failed) = run_all(&build, &chosen, at_once);
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0)
}
