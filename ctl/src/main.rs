//! `keelctl`: see `keelctl --help`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use keelctl::{cli, verbs};

fn main() -> ExitCode {
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
