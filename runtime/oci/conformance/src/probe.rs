//! The program inside the containers, as hook, and as init of a bare guest.
//!
//! - `files`: steps on paths
//! - `guest`: init of a bare guest
//! - `hook`: writes down what a hook is given
//! - `see`: all that a process sees of itself
//! - `steps`: takes steps in order, an answer in JSON on a line each

mod files;
mod guest;
mod hook;
mod see;
mod steps;
mod system;

use std::process::ExitCode;

/// The program's main function: `probe do STEPS`, `probe true`, `probe hook FILE…`,
/// `probe peak FILE PROGRAM…`, or init.
pub fn main() -> ExitCode {
    if std::process::id() == 1 && std::env::args().next().as_deref() == Some("/init") {
        return guest::main();
    }
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    match words.get(1).map(String::as_str) {
        Some("true") => ExitCode::SUCCESS,
        Some("do") => steps::run(words.get(2).map_or("[]", String::as_str)),
        Some("hook") => hook::run(&words[2..]),
        Some("hold") => steps::hold(),
        Some("peak") => system::peak(&words[2..]),
        _ => {
            eprintln!("probe ran without a verb: {words:?}");
            ExitCode::from(99)
        }
    }
}
