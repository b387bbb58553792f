//! Runs the store's tests that need fs-verity, in a bare guest: `keel-store-guest`.

use std::process::ExitCode;

use keel_qemu_tests::conformance::Suite;
use keel_qemu_tests::sealed;

fn main() -> ExitCode {
    match Suite::here().and_then(|suite| sealed::run(&suite.init())) {
        Ok(done) => {
            if done.code != 0 {
                print!("{}", done.output);
            }
            ExitCode::from(u8::from(done.code != 0))
        }
        Err(error) => {
            eprintln!("keel-store-guest: {error:#}");
            ExitCode::from(2)
        }
    }
}
