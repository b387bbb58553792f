//! A PID 1 that panics as soon as it runs: put into a release in place of the real one, it makes the kernel panic.

fn main() {
    panic!("this release's PID 1 panics on purpose");
}
