//! The command line: `host VERB` is one of the services. Exit code 2: wrong command line, 1: the service failed.

use std::process::ExitCode;

/// The program: one of the services, named by the first argument.
pub fn main() -> ExitCode {
    keel_link::logger::init();
    let verb = match verb() {
        Ok(verb) => verb,
        Err(error) => {
            log::error!("{error}: want host provision|network|time");
            return ExitCode::from(2);
        }
    };
    let result = match verb.as_str() {
        "provision" => crate::provision::run(),
        "network" => crate::network::run(),
        "time" => crate::time::run(),
        other => {
            log::error!("{other:?} is not a service: want host provision|network|time");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn verb() -> Result<String, lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let verb = match parser.next()? {
        Some(lexopt::Arg::Value(verb)) => verb.to_string_lossy().into_owned(),
        Some(other) => return Err(other.unexpected()),
        None => return Err("no service named".into()),
    };
    match parser.next()? {
        None => Ok(verb),
        Some(other) => Err(other.unexpected()),
    }
}
