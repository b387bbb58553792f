//! Measures and reports: `keel-bench [KEY,KEY...]`.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use keel_qemu_tests::bench::{MEASUREMENTS, report};
use keel_qemu_tests::build::Build;
use keel_qemu_tests::scenarios::prepare_releases;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("keel-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let wanted: Vec<String> =
        std::env::args().skip(1).flat_map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>()).collect();
    let known: Vec<&str> = MEASUREMENTS.iter().flat_map(|measurement| measurement.keys).copied().collect();
    for key in &wanted {
        ensure!(known.contains(&key.as_str()), "no figure is called {key:?}; there are {}", known.join(", "));
    }
    let build = Build::here()?;
    prepare_releases(&build, &[])?;
    let mut figures = Vec::new();
    for measurement in MEASUREMENTS {
        if !wanted.is_empty() && !measurement.keys.iter().any(|key| wanted.iter().any(|name| name == key)) {
            continue;
        }
        eprintln!("measuring {}", measurement.keys.join(", "));
        match (measurement.run)(&build) {
            Ok(measured) => figures.extend(measured),
            // A figure that can't be measured here is absent, never guessed; the others are still wanted.
            Err(error) => eprintln!("can't measure {}: {error:#}", measurement.keys.join(", ")),
        }
    }
    ensure!(!figures.is_empty(), "nothing could be measured");
    report::write(&build.build, &figures)?;
    print!("{}", report::markdown(&figures));
    println!("\nwritten to build/bench.md, build/bench.json and build/bench.svg");
    Ok(())
}
