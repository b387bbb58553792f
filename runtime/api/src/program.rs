//! `keel-runtime`: the container engine with its HTTP API. Without arguments it serves the host; `oci-init` is the
//! first step of a container's own process.

use std::process::ExitCode;

use crate::daemon::{self, Options};

const USAGE: &str = "\
usage: keel-runtime [--standalone [--config FILE] [--control PATH] [--network]] [--state FOLDER] [--socket PATH]

The container engine and its HTTP API. On a host it is started by PID 1, without arguments.

  --standalone     without Keel's PID 1: default settings, no cgroups, no container networks (tests)
  --config FILE    standalone: settings from this machine config
  --control PATH   standalone: the socket of the containers' parent, in PID 1's place
  --network        standalone: container networks, in the network namespace that this process is in
  --state FOLDER   where images, containers and keys are
  --socket PATH    the unix socket to listen on";

/// The program. Exit code 2: wrong command line, 1: it couldn't serve, and the log says why.
pub fn main() -> ExitCode {
    if keel_engine::reaper::is_wanted() {
        keel_engine::reaper::main();
    }
    // Before anything else: this is a process between clone and exec, with no threads and next to no time.
    if std::env::args_os().nth(1).is_some_and(|argument| argument == "oci-init") {
        keel_oci::init_main();
    }
    let options = match parse() {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("keel-runtime: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    keel_link::logger::init();
    match daemon::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options::default();
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("standalone") => options.standalone = true,
            lexopt::Arg::Long("state") => options.state = absolute(&arguments.value()?)?,
            lexopt::Arg::Long("socket") => options.socket = arguments.value()?.into(),
            lexopt::Arg::Long("config") => options.config = Some(arguments.value()?.into()),
            lexopt::Arg::Long("control") => options.control = Some(arguments.value()?.into()),
            lexopt::Arg::Long("network") => options.network = true,
            lexopt::Arg::Long("help") | lexopt::Arg::Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(options))
}

/// Containers' mounts are named by their whole paths.
fn absolute(path: &std::ffi::OsStr) -> Result<std::path::PathBuf, lexopt::Error> {
    std::path::absolute(path).map_err(|error| lexopt::Error::Custom(error.into()))
}
