//! Time and memory of a container's life, side by side for several runtimes.
//!
//! The runtimes take turns, so that whatever else the machine does reaches all of them.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::lab::{Lab, Runtime};
use crate::run::Place;

/// Rounds that aren't counted: files come into memory, addresses into caches.
const WARM_UP: u32 = 3;
/// Most lives of which the memory is measured, apart from the time.
const MEMORY_ROUNDS: u32 = 50;

/// What one runtime took, a value for each round.
#[derive(Default)]
struct Samples {
    run_ms: Vec<f64>,
    run_busy_ms: Vec<f64>,
    exec_ms: Vec<f64>,
    exec_busy_ms: Vec<f64>,
    peak_kib: Vec<f64>,
}

/// Measures so many rounds: create, start, wait and delete of a program that does nothing; then `exec` of it.
pub(crate) fn run(place: &Place, runtimes: &[Runtime], rounds: u32) -> Result<Value> {
    let mut labs = Vec::new();
    for (at, runtime) in runtimes.iter().enumerate() {
        let token = format!("bench{}x{at}", std::process::id());
        labs.push((Lab::new(runtime, place.dir().join(&token), place.probe(), token)?, Samples::default()));
    }
    for round in 0..rounds + WARM_UP {
        for (lab, samples) in &mut labs {
            let timing = life(lab)?;
            if round >= WARM_UP {
                samples.run_ms.push(timing.ms);
                samples.run_busy_ms.push(timing.busy_ms);
            }
        }
    }
    for (lab, samples) in &mut labs {
        for _ in 0..rounds.min(MEMORY_ROUNDS) {
            samples.peak_kib.push(peak_of_a_life(lab)? as f64);
        }
    }
    executions(&mut labs, rounds)?;
    let mut out = Map::new();
    for (lab, samples) in &labs {
        crate::leftovers::sweep(lab);
        out.insert(
            lab.runtime.name.clone(),
            json!({ "runMs": samples.run_ms, "runBusyMs": samples.run_busy_ms, "execMs": samples.exec_ms,
                "execBusyMs": samples.exec_busy_ms, "peakKib": samples.peak_kib }),
        );
    }
    Ok(Value::Object(out))
}

fn executions(labs: &mut [(Lab, Samples)], rounds: u32) -> Result<()> {
    for (lab, _) in labs.iter() {
        lab.bundle.configure(&lab.spec().set("/process/args", json!(["/bin/probe", "hold"])))?;
        let pid_file = lab.path("pid");
        call(lab, &["create", "--bundle", &lab.bundle_path(), "--pid-file", &pid_file, &lab.token])?;
        lab.ids.borrow_mut().push(lab.token.clone());
        lab.expect_end_of(std::fs::read_to_string(&pid_file)?.trim().parse()?);
        call(lab, &["start", &lab.token])?;
    }
    for round in 0..rounds + WARM_UP {
        for (lab, samples) in labs.iter_mut() {
            let clock = Clock::start();
            call(lab, &["exec", &lab.token, "/bin/probe", "true"])?;
            let timing = clock.read();
            if round >= WARM_UP {
                samples.exec_ms.push(timing.ms);
                samples.exec_busy_ms.push(timing.busy_ms);
            }
        }
    }
    Ok(())
}

/// One container from creation to deletion.
fn life(lab: &Lab) -> Result<Timing> {
    lab.bundle.configure(&lab.spec())?;
    let (id, bundle, pid_file) = (lab.token.as_str(), lab.bundle_path(), lab.path("pid"));
    let clock = Clock::start();
    call(lab, &["create", "--bundle", &bundle, "--pid-file", &pid_file, id])?;
    let pid: u32 = std::fs::read_to_string(&pid_file)?.trim().parse().context("process ID in --pid-file")?;
    call(lab, &["start", id])?;
    crate::sys::wait4(pid).context("wait for the container's process")?;
    call(lab, &["delete", id])?;
    Ok(clock.read())
}

/// Calls the runtime without any file for its output.
fn call(lab: &Lab, words: &[&str]) -> Result<()> {
    let mut command: Command = lab.command(words);
    let child = command.stdout(Stdio::null()).spawn().context("start the runtime")?;
    let (status, _) = crate::sys::wait4(child.id())?;
    ensure!(status == 0, "{} {}: status {status:#x}", lab.runtime.name, words.join(" "));
    Ok(())
}

/// The highest peak memory in KiB of the runtime's own processes in a container's life with an `exec` in it. The probe is
/// what starts them, since a program's peak is never less than that of the process which executes it.
fn peak_of_a_life(lab: &Lab) -> Result<u64> {
    lab.bundle.configure(&lab.spec().set("/process/args", json!(["/bin/probe", "hold"])))?;
    let (id, bundle, pid_file) = (lab.token.as_str(), lab.bundle_path(), lab.path("pid"));
    let mut highest = peak(lab, &["create", "--bundle", &bundle, "--pid-file", &pid_file, id])?;
    let pid: u32 = std::fs::read_to_string(&pid_file)?.trim().parse().context("process ID in --pid-file")?;
    for words in [&["start", id][..], &["exec", id, "/bin/probe", "true"], &["kill", id, "KILL"]] {
        highest = highest.max(peak(lab, words)?);
    }
    crate::sys::wait4(pid).context("wait for the container's process")?;
    Ok(highest.max(peak(lab, &["delete", id])?))
}

fn peak(lab: &Lab, words: &[&str]) -> Result<u64> {
    let inner = lab.command(words);
    let file = lab.path("peak");
    let mut command = Command::new(lab.probe);
    command.args(["peak", &file]).arg(inner.get_program()).args(inner.get_args());
    command.current_dir(&lab.bundle.dir).stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().context("start the probe")?;
    ensure!(status.success(), "{} {}: {status}", lab.runtime.name, words.join(" "));
    Ok(std::fs::read_to_string(&file)?.trim().parse()?)
}

/// Time that passed, and that part of it in which the machine wasn't idle.
struct Timing {
    ms: f64,
    busy_ms: f64,
}

struct Clock {
    begun: Instant,
    idle_ms: f64,
}

impl Clock {
    fn start() -> Self {
        Self { idle_ms: idle_ms(), begun: Instant::now() }
    }

    fn read(&self) -> Timing {
        let ms = self.begun.elapsed().as_secs_f64() * 1000.0;
        // Only of meaning on one processor; in hundredths of a second, so it is their mean that counts.
        Timing { ms, busy_ms: (ms - (idle_ms() - self.idle_ms)).max(0.0) }
    }
}

fn idle_ms() -> f64 {
    let text = std::fs::read_to_string(Path::new("/proc/uptime")).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|idle| idle.parse::<f64>().ok()).unwrap_or(0.0) * 1000.0
}
