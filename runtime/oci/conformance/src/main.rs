//! `keel-oci-conformance --runtime PATH...`: runs the cases against each runtime and prints a table.

use std::process::ExitCode;

fn main() -> ExitCode {
    keel_oci_conformance::suite_main()
}
