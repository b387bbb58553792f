//! Parsers on changed inputs.

use std::process::Command;

use anyhow::{Context, Result};

use super::Figure;
use crate::build::Build;

/// How long each parser is run.
const SECONDS_EACH: &str = "10";

/// Inputs that were run, and those that crashed a parser.
pub fn parsers(build: &Build) -> Result<Vec<Figure>> {
    // Beside this program: `make bench` builds both.
    let program = std::env::current_exe().context("find this program")?.with_file_name("keel-fuzz");
    let out = build.build.join("fuzz");
    let output = Command::new(&program)
        .args(["--seconds", SECONDS_EACH, "--out"])
        .arg(out)
        .output()
        .with_context(|| format!("run {}: cargo build -p keel-fuzz", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let count = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let line = line.with_context(|| format!("{} printed no {name}: {text}", program.display()))?;
        line.parse().with_context(|| format!("{name} is no number: {line}"))
    };
    let how = format!("all parsers of metadata, releases, disks, HTTP answers and config, {SECONDS_EACH} s each");
    let execs = Figure::new("fuzz_execs", "inputs", None, &how, vec![count("fuzz_execs")?]);
    let crashes = Figure::new("fuzz_crashes", "inputs", Some(0.0), &how, vec![count("fuzz_crashes")?]);
    Ok(vec![execs, crashes])
}
