//! A small fleet with the real policy and a simulated clock; `make fleet` runs a large one.

#[path = "../examples/fleet/sim/mod.rs"]
mod sim;

use sim::world::World;
use sim::{Figures, Fleet, population};

const START: u64 = 1_805_976_000;
const DAY_S: u64 = 86_400;
const HOSTS: usize = 2000;

fn run(bad_on: u32, halts: bool) -> (Figures, Option<u64>) {
    let running = "1.0.0".parse().unwrap();
    let world = World::new(START, bad_on, halts, 3 * DAY_S);
    let mut fleet = Fleet::new(population::hosts(HOSTS, &running, START), world);
    fleet.run(START + 16 * DAY_S);
    let figures = fleet.figures.clone();
    println!("{HOSTS} hosts, bad on {bad_on} of 10,000: {figures:?}");
    assert_eq!(figures.outside_window, 0, "a restart outside the host's window");
    assert_eq!(figures.without_lock, 0, "a restart without the lock: two of a group at once");
    assert_eq!(figures.into_withdrawn, 0, "a restart into a release that was withdrawn");
    assert_eq!((figures.stuck, figures.locks_left), (0, 0), "a host that never gets the good release, or a lock");
    assert!(figures.restarts as usize > HOSTS * 8 / 10 && figures.power_cuts > 0, "the fleet did something");
    (figures, fleet.world.withdrawn_at())
}

#[test]
fn a_release_that_is_bad_everywhere_reaches_the_first_wave_alone() {
    let (figures, withdrawn) = run(10_000, true);
    assert!(withdrawn.is_some());
    assert!(figures.got_bad_release <= HOSTS as u64 / 50, "{} hosts got it", figures.got_bad_release);
    assert_eq!(figures.failed, figures.got_bad_release);
}

#[test]
fn a_release_that_is_bad_on_few_hosts_is_halted_before_it_reaches_all() {
    let (halted, withdrawn) = run(100, true);
    let (whole, _) = run(100, false);
    assert!(withdrawn.is_some() && halted.got_bad_release < whole.got_bad_release / 2);
    assert!(whole.got_bad_release > HOSTS as u64 / 2);
}
