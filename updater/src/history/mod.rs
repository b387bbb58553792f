//! Every boot of this machine: when, what ran, on trial or not, how it ended, and what was said last.
//!
//! Kept on the state partition, across slots, for the newest boots. A boot is written down when the updater starts in
//! it; how it ended is found out at the next one, from what the end left behind: PID 1's last words where it was in order,
//! the kernel's in pstore where it panicked, a watchdog that had to bite. A boot that never got as far as the updater
//! is put in afterwards, as far as there is a trace of it.
//!
//! - [`file`](mod@file): where it is kept
//! - [`keeper`]: keeps it while the machine runs
//! - [`step`]: what a start makes of it, pure

pub mod file;
pub mod keeper;
pub mod step;

pub use file::{File, Record};
pub use keeper::Keeper;
pub use step::{Now, begin};
