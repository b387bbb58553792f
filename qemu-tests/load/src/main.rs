//! `keel-load`: works a container engine through its Docker API and says what that took, as one JSON document.
//!
//! The same client for every engine, so that what is compared is the engines: one connection a call, no library.
//!
//! - [`client`]: calls of the API
//! - [`clock`]: wall-clock time, busy time and memory of the machine
//! - [`pull`]: a pull, measured
//! - [`work`]: what is measured
#![forbid(unsafe_code)]

mod client;
mod clock;
mod pull;
mod work;

use std::process::ExitCode;

use anyhow::{Context, Result};
use lexopt::ValueExt as _;

use crate::client::Client;
use crate::work::Order;

const USAGE: &str = "\
usage: keel-load VERB --socket PATH [OPTION]...

  ready              waits until the engine answers (--seconds N)
  load --file TAR    loads a `docker save` archive
  run                create, start, wait for and remove a container of `true`, --rounds N times
  exec               `true` in a container that runs, --rounds N times
  idle --count N     starts N containers that sleep, and says what each costs the machine
  list --count N     makes N containers, and says how long a list of them and a look at one take, --rounds N times
  back --pid N       with --count containers running, kills process N (or the one called --process P), and waits until the
                     engine answers again (--seconds N)
  pull --process P   pulls an image; P is the name of the engine's processes
  forget             removes an image, if it is there

  --image NAME       the image, `web:1` if not given
  --network MODE     the containers' network, `none` if not given";

fn main() -> ExitCode {
    match parse().and_then(|(verb, client, order)| work::of(&verb, &client, &order)) {
        Ok(document) => {
            println!("{document}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("keel-load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse() -> Result<(String, Client, Order)> {
    let (mut verb, mut socket, mut order) = (None, None, Order::default());
    let mut arguments = lexopt::Parser::from_env();
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Value(value) if verb.is_none() => verb = Some(value.string()?),
            lexopt::Arg::Long("socket") => socket = Some(arguments.value()?),
            lexopt::Arg::Long("file") => order.file = arguments.value()?.into(),
            lexopt::Arg::Long("image") => order.image = arguments.value()?.string()?,
            lexopt::Arg::Long("process") => order.process = arguments.value()?.string()?,
            lexopt::Arg::Long("network") => order.network = arguments.value()?.string()?,
            lexopt::Arg::Long("rounds") => order.rounds = arguments.value()?.parse()?,
            lexopt::Arg::Long("count") => order.count = arguments.value()?.parse()?,
            lexopt::Arg::Long("pid") => order.pid = arguments.value()?.parse()?,
            lexopt::Arg::Long("seconds") => order.seconds = arguments.value()?.parse()?,
            other => return Err(anyhow::Error::from(other.unexpected()).context(USAGE)),
        }
    }
    Ok((verb.context(USAGE)?, Client::new(socket.context(USAGE)?.as_ref()), order))
}
