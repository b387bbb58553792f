//! The OCI runtime command line.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1).peekable();
    if words.peek().is_some_and(|word| word == "oci-init") {
        keel_oci::init_main();
    }
    keel_oci::command::main(words)
}
