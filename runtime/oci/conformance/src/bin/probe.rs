//! The program inside the containers that the suite makes.

use std::process::ExitCode;

fn main() -> ExitCode {
    keel_oci_conformance::probe_main()
}
