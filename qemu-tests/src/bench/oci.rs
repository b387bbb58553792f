//! A container's life and `exec`, by our OCI runtime, crun and runc in turn: on this machine, and in a guest.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Figure, median};
use crate::build::Build;
use crate::conformance::{Run, Suite, peers};
use crate::machine::Clock;

/// Rounds on this machine.
const ROUNDS: u32 = 60;
/// Rounds in the guest.
const GUEST_ROUNDS: u32 = 50;
/// Goal: this share of crun's time.
const GOAL: f64 = 0.6;
/// Goal: this share of crun's memory.
const MEMORY_GOAL: f64 = 1.0;
/// Rounds that tell where time goes.
const STEP_ROUNDS: u32 = 50;
/// Our program's name.
const OURS: &str = "keel-oci";

/// The ratios to crun, then the times and the memory that they are made of.
pub fn times(_build: &Build) -> Result<Vec<Figure>> {
    let suite = Suite::here()?;
    let peers = peers()?;
    let mut command = suite.command();
    command.args(["--bench", &ROUNDS.to_string(), "--runtime"]).arg(suite.runtime());
    for peer in &peers {
        command.arg("--runtime").arg(peer);
    }
    let output = command.output().context("run keel-oci-conformance")?;
    ensure!(output.status.success(), "keel-oci-conformance: {}", String::from_utf8_lossy(&output.stderr));
    let here: Value = serde_json::from_slice(&output.stdout)?;
    let words = ["--bench".to_owned(), GUEST_ROUNDS.to_string()];
    let clock = Clock::Instructions;
    let done = suite.in_guest(&Run { name: "bench-oci", peers: &peers, words: &words, clock, policy: None })?;
    ensure!(done.code == 0, "keel-oci-conformance in a guest: {}", done.output);
    let guest: Value = serde_json::from_str(&done.output)?;
    let place =
        format!("create+start+wait+delete of a static program that does nothing, {ROUNDS} rounds in turn, here");
    let inside = "the same in a guest on the target's kernel with cgroup v2, a nanosecond an instruction";
    let mut figures = vec![
        ratio("oci_vs_crun", GOAL, &here, "runMs", &place)?,
        ratio("oci_exec_vs_crun", GOAL, &here, "execMs", "exec of the same program, likewise")?,
        ratio("oci_vs_crun_guest", GOAL, &guest, "runMs", inside)?,
        ratio("oci_exec_vs_crun_guest", GOAL, &guest, "execMs", inside)?,
    ];
    figures.push(absolute("oci_run_ms", "ms", &here, "runMs", &place)?);
    figures.push(absolute("oci_exec_ms", "ms", &here, "execMs", "exec of the same program, likewise")?);
    figures.push(absolute("oci_run_guest_ms", "ms", &guest, "runMs", inside)?);
    figures.push(absolute("oci_exec_guest_ms", "ms", &guest, "execMs", inside)?);
    let peak = "highest resident set of the runtime's processes in a container's life with an exec";
    figures.push(ratio("oci_peak_vs_crun", MEMORY_GOAL, &here, "peakKib", peak)?);
    figures.push(absolute("oci_peak_kib", "KiB", &here, "peakKib", peak)?);
    figures.push(absolute("oci_peak_guest_kib", "KiB", &guest, "peakKib", inside)?);
    eprintln!("{}", steps(&suite)?);
    Ok(figures)
}

/// Where our runtime's time goes: a table of steps with their shares, which is no figure.
fn steps(suite: &Suite) -> Result<String> {
    let mut command = suite.command();
    command.args(["--steps", &STEP_ROUNDS.to_string(), "--runtime"]).arg(suite.runtime());
    let output = command.output().context("run keel-oci-conformance")?;
    ensure!(output.status.success(), "keel-oci-conformance: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Milliseconds of busy guest time of a container's life by our runtime alone: a mean, as idle time is told in hundredths
/// of a second.
pub(super) fn guest_run_ms() -> Result<f64> {
    let (suite, words) = (Suite::here()?, ["--bench".to_owned(), GUEST_ROUNDS.to_string()]);
    let clock = Clock::Instructions;
    let done = suite.in_guest(&Run { name: "bench-oci-alone", peers: &[], words: &words, clock, policy: None })?;
    ensure!(done.code == 0, "keel-oci-conformance in a guest: {}", done.output);
    let all = serde_json::from_str(&done.output)?;
    let lives = samples(&all, OURS, "runBusyMs")?;
    let mean = lives.iter().sum::<f64>() / lives.len() as f64;
    let returned = median(&samples(&all, OURS, "runMs")?);
    eprintln!(
        "the runtime alone: {mean:.2} ms busy, {returned:.2} ms until it returns: the kernel's clearing up is apart"
    );
    Ok(mean)
}

/// Each of our rounds divided by the median of crun's.
fn ratio(key: &'static str, goal: f64, all: &Value, of: &str, how: &str) -> Result<Figure> {
    let crun = median(&samples(all, "crun", of)?);
    let ours = samples(all, OURS, of)?.iter().map(|sample| sample / crun).collect();
    let mut figure = Figure::new(key, "", Some(goal), how, ours);
    figure.peers = others(all, |name| Ok(median(&samples(all, name, of)?) / crun))?;
    Ok(figure)
}

fn absolute(key: &'static str, unit: &'static str, all: &Value, of: &str, how: &str) -> Result<Figure> {
    let mut figure = Figure::new(key, unit, None, how, samples(all, OURS, of)?);
    figure.peers = others(all, |name| Ok(median(&samples(all, name, of)?)))?;
    Ok(figure)
}

fn others(all: &Value, value: impl Fn(&str) -> Result<f64>) -> Result<BTreeMap<String, f64>> {
    let names = all.as_object().into_iter().flatten().map(|(name, _)| name).filter(|name| *name != OURS);
    names.map(|name| Ok((name.clone(), value(name)?))).collect()
}

fn samples(all: &Value, runtime: &str, of: &str) -> Result<Vec<f64>> {
    let list: Vec<f64> = all[runtime][of].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    ensure!(!list.is_empty(), "no {of} was measured for {runtime}");
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_to_the_median_of_crun() {
        let all = serde_json::json!({
            "keel-oci": { "runMs": [2.0, 4.0, 3.0] }, "crun": { "runMs": [10.0, 5.0, 90.0] }, "runc": { "runMs": [30.0] },
        });
        let figure = ratio("oci_vs_crun", GOAL, &all, "runMs", "").unwrap();
        assert_eq!(figure.samples, [0.2, 0.4, 0.3]);
        assert_eq!(figure.peers, [("crun".to_owned(), 1.0), ("runc".to_owned(), 3.0)].into());
        assert!(ratio("oci_vs_crun", GOAL, &all, "execMs", "").is_err());
    }
}
