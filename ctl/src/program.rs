//! The command line, from its words to an exit code; see `keelctl --help`.

use std::process::ExitCode;

use crate::{cli, verbs};

/// The program.
pub fn main() -> ExitCode {
    match cli::parse(std::env::args_os().skip(1)) {
        Ok(invocation) => match verbs::run(invocation) {
            Ok(code) => ExitCode::from(code),
            Err(failure) => {
                eprintln!("keelctl: {failure}");
                ExitCode::from(failure.exit_code())
            }
        },
        Err(error) => {
            eprintln!("keelctl: {error}\nTry `keelctl --help`.");
            ExitCode::from(2)
        }
    }
}
