//! A PID 1 that hangs: it holds the watchdog that stage 1 armed and never feeds it.

fn main() {
    loop {
        std::thread::park();
    }
}
