//! The runtime as a program of its own; see [`keel_runtime::program`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    keel_runtime::program::main()
}
