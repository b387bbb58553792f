//! The programs of a host in one file: `host`, `updater`, `runtime` and `keelctl`, each by its own name, as a link.
//!
//! They share most of what they are made of: the standard library, TLS, the bus, HTTP. In one file that is stored,
//! checked by dm-verity and held in memory once. They stay processes of their own, and PID 1 a file of its own.
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// Names that the runtime is called by beside its own: what it starts itself as, in and for containers.
const RUNTIME: [&str; 3] = ["runtime", "docker-init", "keel-oci"];

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str).unwrap_or_default() {
        "host" => keel_host::program::main(),
        "updater" => keel_updater::program::main(),
        "keelctl" => keelctl::program::main(),
        name if RUNTIME.contains(&name) => keel_runtime::program::main(),
        name => {
            eprintln!("keel: no program is called {name:?}: link this file as host, updater, runtime or keelctl");
            ExitCode::from(2)
        }
    }
}
