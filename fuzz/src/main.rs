//! `keel-fuzz [--seconds N | --execs N] [--seed N] [--out FOLDER] [TARGET...]`: fuzzes all parsers, or those named.
//!
//! Prints a line for each target and, last, `fuzz_execs N` and `fuzz_crashes N`. Inputs that crash are written to the
//! folder, and the exit status is 1.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keel_fuzz::runner::{self, Budget};
use keel_fuzz::targets;

struct Arguments {
    budget: Budget,
    seed: u64,
    out: PathBuf,
    names: Vec<String>,
}

fn parse(mut from: impl Iterator<Item = String>) -> Result<Arguments> {
    let time = Budget::Time(Duration::from_secs(10));
    let mut arguments = Arguments { budget: time, seed: 1, out: "build/fuzz".into(), names: Vec::new() };
    while let Some(argument) = from.next() {
        let mut value = || from.next().with_context(|| format!("{argument}: what follows it is missing"));
        match argument.as_str() {
            "--seconds" => arguments.budget = Budget::Time(Duration::from_secs(value()?.parse().context("--seconds")?)),
            "--execs" => arguments.budget = Budget::Execs(value()?.parse().context("--execs")?),
            "--seed" => arguments.seed = value()?.parse().context("--seed")?,
            "--out" => arguments.out = value()?.into(),
            option if option.starts_with('-') => bail!("{option}: there is no such option"),
            _ => arguments.names.push(argument),
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("keel-fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<u64> {
    let targets = targets::all();
    for name in &arguments.names {
        let known: Vec<&str> = targets.iter().map(|target| target.name).collect();
        ensure!(known.contains(&name.as_str()), "no target is called {name:?}; there are {}", known.join(", "));
    }
    let (mut execs, mut crashes) = (0, 0);
    for target in targets.iter().filter(|it| arguments.names.is_empty() || arguments.names.iter().any(|n| n == it.name))
    {
        let outcome = runner::run(target, arguments.seed, arguments.budget);
        println!(
            "{}: {} inputs, {} different answers, {} crashes",
            target.name,
            outcome.execs,
            outcome.answers,
            outcome.crashes.len()
        );
        for (number, (input, said)) in outcome.crashes.iter().enumerate() {
            std::fs::create_dir_all(&arguments.out).with_context(|| format!("make {}", arguments.out.display()))?;
            let path = arguments.out.join(format!("{}-{number}", target.name));
            std::fs::write(&path, input).with_context(|| format!("write {}", path.display()))?;
            println!("  {}: {said}", path.display());
        }
        execs += outcome.execs;
        crashes += outcome.crashes.len() as u64;
    }
    println!("fuzz_execs {execs}\nfuzz_crashes {crashes}");
    Ok(crashes)
}
