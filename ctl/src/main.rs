//! `keelctl` as a program of its own; see [`keelctl::program`].
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    keelctl::program::main()
}
