//! The OCI runtime command line, as other engines call one. What the specification leaves open is as in runc and crun.
//!
//! - `args`: words into options, by a table
//! - `bundle`: `config.json` and the root file system
//! - `console`: terminals: sent over a console socket, or connected to this one's
//! - `create`, `exec`, `start`, `signal` (kill, delete), `limits` (pause, resume, update), `events`, `show` (state,
//!   list), `ps`: the verbs
//! - `features`, `template`: what this can do, and a configuration to begin with
//! - `notify`: passes on what a service tells of its readiness
//! - `place`: where cgroups are on this host
//! - `record`: what is remembered of a container
//! - `report`: how errors are told
//! - `rootless`: as a user other than root
//! - `wait`: until a process ends, passing signals on

mod args;
mod bundle;
mod clock;
mod console;
mod create;
mod events;
mod exec;
mod features;
mod limits;
mod notify;
mod place;
mod ps;
mod record;
mod report;
mod rootless;
mod show;
mod signal;
mod start;
mod template;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use args::Args;
use report::Failure;

use crate::steps;

type Result<T> = std::result::Result<T, Failure>;

/// Runs a command line (without the program's name); returns what to exit with.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match args::parse(words) {
        Ok(args) => args,
        Err(failure) => return report::report(None, &failure),
    };
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => report::report(Some(&args), &failure),
    }
}

fn run(args: &Args) -> Result<u8> {
    if args.has("version") || args.verb == "version" {
        features::version();
        return Ok(0);
    }
    if args.has("help") || args.verb.is_empty() || args.verb == "help" {
        print!("{}", args::usage(&args.verb));
        return Ok(if args.verb.is_empty() && !args.has("help") { 1 } else { 0 });
    }
    report::check(args)?;
    if args.has("systemd-cgroup") {
        return Err(Failure::new("--systemd-cgroup: there is no systemd manager here; use --cgroup-manager cgroupfs"));
    }
    if args.has("debug") {
        steps::begin("");
    }
    let done = call(args);
    for (step, ns) in steps::durations(steps::take()) {
        report::debug(args, || format!("step: {}: {step}: {} us", args.verb, ns / 1000));
    }
    done
}

fn call(args: &Args) -> Result<u8> {
    match args.verb.as_str() {
        "create" => create::create(args),
        "run" => create::run(args),
        "start" => start::start(args),
        "state" => show::state(args),
        "list" => show::list(args),
        "ps" => ps::ps(args),
        "kill" => signal::kill(args),
        "delete" => signal::delete(args),
        "exec" => exec::exec(args),
        "pause" => limits::freeze(args, true),
        "resume" => limits::freeze(args, false),
        "update" => limits::update(args),
        "events" => events::events(args),
        "features" => features::features(),
        "spec" => template::spec(args),
        other => Err(Failure::new(format!("{other:?} isn't a command; see --help"))),
    }
}
