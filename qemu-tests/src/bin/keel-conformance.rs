//! Runs the OCI runtime's conformance suite:
//! `keel-conformance [--peers] [--table | --quiet] [--host | --guest] [NAME-PART...]`, or with `--engines` Podman and
//! containerd with our runtime.
//!
//! Without `--host` or `--guest` it runs in both places: on the workstation what that allows, then in a bare guest what
//! needs one.

use std::process::ExitCode;

use anyhow::Result;
use keel_qemu_tests::conformance::{Suite, peers};
use keel_qemu_tests::machine::Clock;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("keel-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    let (mut host, mut guest, mut others) = (true, true, Vec::new());
    let mut words = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--host" => guest = false,
            "--guest" => host = false,
            "--peers" => others = peers()?,
            "--engines" => return engines(),
            _ => words.push(argument),
        }
    }
    let suite = Suite::here()?;
    let mut good = true;
    if host {
        println!("on this machine:");
        let mut command = suite.command();
        command.arg("--runtime").arg(suite.runtime());
        for peer in &others {
            command.arg("--runtime").arg(peer);
        }
        good &= command.args(&words).status()?.success();
    }
    if guest {
        println!("in a guest with cgroup v2:");
        if host {
            words.push("--cgroup-v2".to_owned());
        }
        let done = suite.in_guest("conformance", &others, &words, Clock::Real)?;
        print!("{}", done.output);
        good &= done.code == 0;
    }
    Ok(good)
}

fn engines() -> Result<bool> {
    let suite = Suite::here()?;
    for line in keel_qemu_tests::engines::try_all(&suite.runtime(), &suite.place("engines"))? {
        println!("{line}");
    }
    Ok(true)
}
