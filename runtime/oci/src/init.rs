//! What the re-executed child runs.
/// Runs the first process of a container, up to the execution of its program.
pub fn init_main() -> ! {
    std::process::exit(1)
}
