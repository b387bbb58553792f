//! Does a program keep the OCI runtime specification 1.2? Written from its text, for any runtime command.
//!
//! - `bench`: time and memory of a container's life, side by side for several runtimes
//! - `bundle`: the folder that a runtime is given, and the probe's steps in it
//! - `case`: one requirement, its section, and what it needs of the machine
//! - `cases`: all of them
//! - `cli`: the command line
//! - `container`: a container's life, verb by verb
//! - `expect`: known deviations of known runtimes
//! - `lab`: what a case works with
//! - `leftovers`: what must be gone once a case has ended
//! - `policies`: what the machine's security modules must have been given
//! - `probe`: the program inside the containers, as hook, and as init of a bare guest
//! - `process`: programs with a deadline
//! - `report`: the table of results
//! - `run`: runs cases side by side
//! - `spec`: `config.json` under construction
//! - `steps`: where a runtime's time goes, as it tells itself
//! - `sys`: system calls that rustix lacks
//! - `terminal`: the caller's end of `--console-socket`
#![deny(unsafe_code)]

mod bench;
mod bundle;
mod case;
mod cases;
mod cli;
mod container;
mod expect;
mod lab;
mod leftovers;
mod policies;
mod probe;
mod process;
mod report;
mod run;
mod spec;
mod steps;
mod sys;
mod terminal;

pub use cli::main as suite_main;
pub use probe::main as probe_main;
