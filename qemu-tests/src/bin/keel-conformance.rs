//! Runs the OCI runtime's conformance suite:
//! `keel-conformance [--peers] [--table | --quiet] [--host | --guest] [NAME-PART...]`, or with `--engines` Podman,
//! containerd and Docker with our runtime.
//!
//! Without `--host` or `--guest` it runs in both places: on the workstation what that allows, then in bare guests what
//! needs one: cgroup v2 and AppArmor in one, SELinux, which excludes AppArmor, in another.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use keel_qemu_tests::conformance::{Run, Suite, peers};
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
    let mut words: Vec<String> = Vec::new();
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
    let (mut good, mut ran) = (true, host);
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
        let all = if host { &["cgroup-v2", "apparmor"][..] } else { &["root", "cgroup-v2", "apparmor"] };
        let (apparmor, selinux) = (suite.apparmor()?, suite.selinux()?);
        for (what, name, policy, needs) in [
            ("cgroup v2 and AppArmor", "conformance", &apparmor, all),
            ("SELinux", "conformance-selinux", &selinux, &["selinux"][..]),
        ] {
            let needs = needs.iter().flat_map(|thing| ["--needs".to_owned(), (*thing).to_owned()]);
            let words: Vec<String> = words.iter().cloned().chain(needs).collect();
            if !suite.has_cases(&words)? {
                continue;
            }
            println!("in a guest with {what}:");
            let run = Run { name, peers: &others, words: &words, clock: Clock::Real, policy: Some(policy) };
            let done = suite.in_guest(&run)?;
            print!("{}", done.output);
            good &= done.code == 0;
            ran = true;
        }
    }
    ensure!(ran, "the suite has no case for {words:?}");
    Ok(good)
}

fn engines() -> Result<bool> {
    let suite = Suite::here()?;
    for line in keel_qemu_tests::engines::try_all(&suite.runtime(), &suite.place("engines"))? {
        println!("{line}");
    }
    Ok(true)
}
