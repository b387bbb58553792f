//! Where a runtime's time goes in a container's life, as it tells itself: with `--debug`, keel-oci logs how long each of its
//! steps took. What is left of a call's time is the kernel's starting and ending of a program.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::lab::{Lab, Runtime};
use crate::run::Place;

/// Rounds that aren't counted.
const WARM_UP: u32 = 3;
/// The calls that a life consists of.
const VERBS: [&str; 3] = ["create", "start", "delete"];

/// Microseconds of each step, in the order in which they come.
#[derive(Default)]
struct Steps {
    order: Vec<String>,
    samples: BTreeMap<String, Vec<f64>>,
}

impl Steps {
    fn add(&mut self, step: &str, us: f64) {
        if !self.samples.contains_key(step) {
            self.order.push(step.to_owned());
        }
        self.samples.entry(step.to_owned()).or_default().push(us);
    }
}

/// A table of steps with their medians and shares.
pub(crate) fn run(place: &Place, runtime: &Runtime, rounds: u32) -> Result<String> {
    let token = format!("steps{}", std::process::id());
    let lab = Lab::new(runtime, place.dir().join(&token), place.probe(), token)?;
    let mut verbs: BTreeMap<&str, (Vec<f64>, Steps)> = BTreeMap::new();
    for round in 0..rounds + WARM_UP {
        lab.bundle.configure(&lab.spec())?;
        let (bundle, pid_file, id) = (lab.bundle_path(), lab.path("pid"), lab.token.clone());
        let create = ["create", "--bundle", &bundle, "--pid-file", &pid_file, &id];
        for verb in VERBS {
            if verb == "delete" {
                let pid: u32 = fs::read_to_string(&pid_file)?.trim().parse().context("process ID in --pid-file")?;
                crate::sys::wait4(pid).context("wait for the container's process")?;
            }
            let plain = [verb, id.as_str()];
            let (wall, steps) = timed(&lab, if verb == "create" { &create } else { &plain })?;
            if round >= WARM_UP {
                let (walls, all) = verbs.entry(verb).or_default();
                walls.push(wall);
                let mut rest = wall;
                for (step, us) in steps {
                    rest -= us;
                    all.add(&step, us);
                }
                all.add("start and end of the program (the kernel's)", rest);
            }
        }
    }
    crate::leftovers::sweep(&lab);
    Ok(table(&verbs))
}

/// One call: the microseconds that passed, and its steps.
fn timed(lab: &Lab, words: &[&str]) -> Result<(f64, Vec<(String, f64)>)> {
    let log = lab.path("steps.log");
    let _ = fs::remove_file(&log);
    let mut all = vec!["--debug", "--log", &log, "--log-format", "json"];
    all.extend(words);
    let begun = Instant::now();
    let status = lab.command(&all).stdout(Stdio::null()).spawn()?.wait()?;
    let wall = begun.elapsed().as_secs_f64() * 1e6;
    ensure!(status.success(), "{}: {status}", words.join(" "));
    let text = fs::read_to_string(&log).unwrap_or_default();
    let steps: Vec<(String, f64)> = text.lines().filter_map(step).collect();
    ensure!(!steps.is_empty(), "{} tells no steps with --debug", lab.runtime.name);
    Ok((wall, steps))
}

/// `step: VERB: NAME: N us`.
fn step(line: &str) -> Option<(String, f64)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let (_, rest) = line["msg"].as_str()?.strip_prefix("step: ")?.split_once(": ")?;
    let (name, us) = rest.rsplit_once(": ")?;
    Some((name.to_owned(), us.strip_suffix(" us")?.parse().ok()?))
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn table(verbs: &BTreeMap<&str, (Vec<f64>, Steps)>) -> String {
    let whole: f64 = verbs.values().map(|(walls, _)| median(walls)).sum();
    let mut out = String::from("| call | step | median, us | share |\n| --- | --- | --- | --- |\n");
    for verb in VERBS {
        let Some((walls, steps)) = verbs.get(verb) else { continue };
        let all = median(walls);
        let _ = writeln!(out, "| {verb} | all | {all:.0} | {:.1} % |", all / whole * 100.0);
        for name in &steps.order {
            let us = median(&steps.samples[name]);
            let _ = writeln!(out, "| | {name} | {us:.0} | {:.1} % |", us / whole * 100.0);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_logged_step_is_understood() {
        let line =
            json!({ "level": "debug", "msg": "step: create: inside: mount /proc: 12 us", "time": "" }).to_string();
        assert_eq!(step(&line), Some(("inside: mount /proc".to_owned(), 12.0)));
        assert_eq!(step("{}"), None);
        assert_eq!(step(&json!({ "msg": "remove /x" }).to_string()), None);
    }
}
