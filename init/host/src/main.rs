//! `host` as a program of its own; see [`keel_host::program`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    keel_host::program::main()
}
