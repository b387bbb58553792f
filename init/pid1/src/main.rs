//! Keel's PID 1.
//!
//! One binary: `/init` in the initrd (stage 1), `/sbin/init` on the verified root (stage 2), `modprobe` for the
//! kernel's requests, `coldplug` for the modules of devices that were there before anybody listened, and `firmware` for
//! the firmware's variables: jobs that may take their time, which PID 1 has not.
//!
//! A fault here must not leave a machine standing still: with `panic=abort` a bug ends PID 1, the kernel panics, and
//! `panic=` on its command line restarts the machine, which counts against the release.
//!
//! - [`clock`], [`console`], [`sys`], [`watchdog`]: the machine's parts that both stages use
//! - [`modules`], [`coldplug`]: kernel modules, by alias or by name
//! - [`disks`]: partitions, found by root hash or by label
//! - [`stage1`], [`verity`], [`switch_root`], [`rotten`]: from the initrd to the verified root
//! - [`stage2`], [`mounts`]: the verified root made ready for services
//! - [`services`], [`supervise`], [`spawn`]: which services there are, what is to be done about each, and doing it
//! - [`machine`], [`control`], [`requests`], [`tables`], [`logs`], [`trial`]: the event loop and its state
//! - [`farewell`], [`finish`]: the end, and what is left for the next boot
#![deny(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod clock;
mod coldplug;
mod console;
mod control;
mod disks;
mod farewell;
mod finish;
mod logs;
mod machine;
mod modules;
mod mounts;
mod requests;
mod rotten;
mod services;
mod spawn;
mod stage1;
mod stage2;
mod supervise;
mod switch_root;
mod sys;
mod tables;
mod trial;
mod verity;
mod watchdog;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().map(|text| text.to_string_lossy().into_owned()).collect();
    let name = arguments.first().map_or("", |path| path.rsplit('/').next().unwrap_or(path));
    let first = arguments.get(1).map_or("", String::as_str);
    match (std::process::id(), name, first) {
        (1, _, stage2::ARGUMENT) => stage2::run(arguments.get(2..).unwrap_or_default()),
        (1, _, _) => stage1::run(),
        (_, "modprobe", _) => modules::modprobe(arguments.get(1..).unwrap_or_default()),
        (_, _, "firmware") => firmware(),
        (_, _, "coldplug") => coldplug::run(arguments.get(2..).unwrap_or_default()),
        _ => {
            eprintln!("keel-init: runs as PID 1, as modprobe, or with the argument coldplug or firmware");
            ExitCode::from(2)
        }
    }
}

/// Makes the firmware's variables readable. A firmware that doesn't let them be read is no reason to try again.
fn firmware() -> ExitCode {
    match mounts::mount_all(&mounts::FIRMWARE) {
        Ok(problems) => problems.iter().for_each(|problem| eprintln!("warn: {problem}")),
        Err(problem) => eprintln!("error: {problem}"),
    }
    ExitCode::SUCCESS
}
