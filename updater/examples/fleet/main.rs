//! A rollout to a fleet, simulated: each host runs the real policy, the clock doesn't.
//!
//! ```text
//! cargo run -p keel-updater --example fleet -- [HOSTS]
//! ```
//!
//! A release that is bad on some hosts is published in waves, while hosts report their outcomes; the publisher withdraws
//! it when failures add up, and publishes a good one three days later. How many hosts got the bad one, and whether
//! anything went wrong on the way, is printed. Status 1: something did.
#![forbid(unsafe_code)]

mod sim;

use std::process::ExitCode;
use std::time::Instant;

use sim::world::World;
use sim::{Fleet, population};

/// Thursday, 25 March 2027, 12:00 UTC: clocks change in Europe three days later, in New Zealand ten days later.
const START: u64 = 1_805_976_000;
const DAY_S: u64 = 86_400;

fn main() -> ExitCode {
    let hosts = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(100_000);
    let mut wrong = false;
    for (name, bad_on, halts) in [
        ("bad on 1 % of hosts, withdrawn when failures add up", 100, true),
        ("bad on all hosts, withdrawn when failures add up", 10_000, true),
        ("bad on 1 % of hosts, nobody withdraws it", 100, false),
    ] {
        let began = Instant::now();
        let running = "1.0.0".parse().unwrap_or_else(|error| panic!("{error}"));
        let mut fleet =
            Fleet::new(population::hosts(hosts, &running, START), World::new(START, bad_on, halts, 3 * DAY_S));
        fleet.run(START + 16 * DAY_S);
        let it = &fleet.figures;
        let hours = |seconds: u64| seconds as f64 / 3600.0;
        println!("{hosts} hosts, {name}:");
        if let Some(at) = fleet.world.withdrawn_at() {
            println!("  withdrawn {:.1} h after it was published", hours(at - START - 3600));
        }
        println!(
            "  {} hosts got it ({:.2} %), it failed on {}",
            it.got_bad_release,
            it.got_bad_release as f64 * 100.0 / hosts as f64,
            it.failed
        );
        println!(
            "  {} restarts: {} outside their window, {} without the lock they need, {} into a release withdrawn before",
            it.restarts, it.outside_window, it.without_lock, it.into_withdrawn
        );
        println!(
            "  the last host had the good release {:.1} days after the start; {} stuck, {} locks left, {} power cuts",
            hours(it.done_after_s) / 24.0,
            it.stuck,
            it.locks_left,
            it.power_cuts
        );
        println!(
            "  {} decisions, {} looks at the repository, simulated in {:.0} s",
            it.steps,
            it.looks,
            began.elapsed().as_secs_f64()
        );
        wrong |= it.outside_window + it.without_lock + it.into_withdrawn + it.stuck + it.locks_left > 0;
    }
    ExitCode::from(u8::from(wrong))
}
