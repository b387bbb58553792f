//! The command line.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::case::{Case, Needs};
use crate::lab::Runtime;
use crate::report::{self, Mark};
use crate::run::{Place, run_all};
use crate::{bench, cases, steps};

const USAGE: &str = "\
usage: keel-oci-conformance --runtime PATH [--runtime PATH...] [--table] [--quiet] [--needs THING...] [--json FILE]
                            [--at-once N] [NAME-PART...]
       keel-oci-conformance --list [--needs THING...] [NAME-PART...]
       keel-oci-conformance --bench N --runtime PATH [--runtime PATH...] [--json FILE]
       keel-oci-conformance --steps N --runtime PATH

Runs each case with each runtime; exit code 1 if one fails that isn't listed as a known deviation. With --needs root,
cgroup-v2, apparmor, selinux: only cases that need one of those, which this machine must have.";

/// What the command line asks for.
#[derive(Default)]
struct Order {
    runtimes: Vec<PathBuf>,
    list: bool,
    table: bool,
    quiet: bool,
    needs: Vec<Needs>,
    json: Option<PathBuf>,
    at_once: Option<usize>,
    bench: Option<u32>,
    steps: Option<u32>,
    parts: Vec<String>,
}

/// The program's main function.
pub fn main() -> ExitCode {
    match parse().and_then(|order| run(&order)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("keel-oci-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Order> {
    use lexopt::prelude::*;
    let mut order = Order::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("runtime") => order.runtimes.push(parser.value()?.into()),
            Long("list") => order.list = true,
            Long("table") => order.table = true,
            Long("quiet") => order.quiet = true,
            Long("needs") => {
                let word = parser.value()?.string()?;
                order.needs.push(Needs::named(&word).with_context(|| format!("--needs {word}\n{USAGE}"))?);
            }
            Long("json") => order.json = Some(parser.value()?.into()),
            Long("at-once") => order.at_once = Some(parser.value()?.parse()?),
            Long("bench") => order.bench = Some(parser.value()?.parse()?),
            Long("steps") => order.steps = Some(parser.value()?.parse()?),
            Long("hold-namespaces") => {
                let kinds = parser.raw_args()?.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>();
                cases::hold_namespaces(&kinds)?;
                std::process::exit(0);
            }
            Long("activate") => return activate(parser.raw_args()?.collect()),
            Long("help") => bail!("{USAGE}"),
            Value(part) => order.parts.push(part.string()?),
            other => return Err(other.unexpected()).context(USAGE),
        }
    }
    ensure!(order.list || !order.runtimes.is_empty(), "{USAGE}");
    Ok(order)
}

/// The same command, which finds itself in `LISTEN_PID`.
pub(crate) fn activated(command: Command) -> Command {
    let mut outer = Command::new("/proc/self/exe");
    outer.arg("--activate").arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    for (name, value) in command.get_envs() {
        outer.env(name, value.unwrap_or_default());
    }
    if let Some(dir) = command.get_current_dir() {
        outer.current_dir(dir);
    }
    outer
}

/// `--activate PROGRAM WORD…`: becomes that program.
fn activate(words: Vec<OsString>) -> Result<Order> {
    let (program, rest) = words.split_first().context("--activate wants a program")?;
    let error = Command::new(program).args(rest).env("LISTEN_PID", std::process::id().to_string()).exec();
    Err(error).with_context(|| format!("execute {}", program.display()))
}

fn run(order: &Order) -> Result<bool> {
    let all = cases::all();
    let wanted = |case: &&Case| order.parts.is_empty() || order.parts.iter().any(|p| case.name.contains(p.as_str()));
    let needed = |case: &&Case| order.needs.is_empty() || order.needs.contains(&case.needs);
    let chosen: Vec<Case> = all.iter().filter(wanted).filter(needed).copied().collect();
    if chosen.is_empty() {
        let of = order.needs.iter().map(|needs| format!(" among those that need {}", needs.word())).collect::<String>();
        bail!("no case is named like {:?}{of}; --list shows them", order.parts);
    }
    if order.list {
        chosen.iter().for_each(|case| println!("{:50} {}", case.name, case.section));
        println!("{} cases", chosen.len());
        return Ok(true);
    }
    for needs in &order.needs {
        ensure!(needs.is_here(), "this machine must have {}: it was asked for by --needs", needs.text());
    }
    let runtimes = order.runtimes.iter().map(|path| Runtime::find(path)).collect::<Result<Vec<_>>>()?;
    let place = Place::new()?;
    if let Some(rounds) = order.bench {
        let figures = bench::run(&place, &runtimes, rounds)?;
        write_json(order.json.as_deref(), &figures)?;
        return Ok(true);
    }
    let at_once = order.at_once.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
    if let Some(rounds) = order.steps {
        print!("{}", steps::run(&place, &runtimes[0], rounds)?);
        return Ok(true);
    }
    let results = run_all(&place, &chosen, &runtimes, at_once, |ran| {
        let calm = matches!(report::mark(ran), Mark::Pass | Mark::Known | Mark::Elsewhere);
        if !(order.table || order.quiet && calm) {
            let mut out = std::io::stdout().lock();
            let _ = writeln!(out, "{}", report::line(ran));
        }
    });
    if order.table {
        print!("{}", report::table(&results, &runtimes));
    } else {
        runtimes.iter().for_each(|runtime| println!("{}", report::sums(&results, &runtime.name)));
    }
    if let Some(path) = &order.json {
        write_json(Some(path), &report::json(&results))?;
    }
    Ok(!results.iter().any(|ran| report::mark(ran) == Mark::Fail))
}

fn write_json(path: Option<&Path>, value: &serde_json::Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    match path {
        Some(path) => std::fs::write(path, text).with_context(|| format!("write {}", path.display())),
        None => {
            print!("{text}");
            Ok(())
        }
    }
}
