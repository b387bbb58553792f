//! `coldplug`: loads modules for all devices that are there, once, in a process of its own.
//!
//! What comes later brings its own request: the kernel calls `modprobe`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use crate::clock;
use crate::modules::{self, Modules};

/// Loading a bus's driver shows what is on that bus; no machine nests deeper than this.
const MAX_ROUNDS: usize = 8;

/// Loads modules until a round shows no new device.
pub fn run() -> ExitCode {
    let modules = Modules::open();
    let mut tried = BTreeSet::new();
    for _ in 0..MAX_ROUNDS {
        let count = round(&modules, &mut tried);
        eprintln!("info: loaded the modules of {count} kinds of devices, {} ms after boot", clock::boot_ms());
        if count == 0 {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Loads what new devices ask for. Says how many were new. What doesn't load is said and passed over: a device that
/// can't be driven must not keep the others from being.
pub fn round(modules: &Modules, tried: &mut BTreeSet<String>) -> usize {
    let mut new: Vec<String> = modules::device_aliases().into_iter().filter(|alias| !tried.contains(alias)).collect();
    // Virtual disks and network cards first: they are what the rest of the boot waits for.
    new.sort_by_key(|alias| !alias.starts_with("virtio:"));
    for alias in &new {
        if let Err(error) = modules.load(alias) {
            eprintln!("warn: cannot load the modules for {alias}: {error}");
        }
    }
    let count = new.len();
    tried.extend(new);
    count
}
