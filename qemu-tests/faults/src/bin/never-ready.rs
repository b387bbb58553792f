//! A service that runs but never says that it is ready: put into a release in place of a required one, it keeps the
//! release from becoming good.

fn main() {
    loop {
        std::thread::park();
    }
}
