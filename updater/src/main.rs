//! The updater as a program of its own; see [`keel_updater::program`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    keel_updater::program::main()
}
