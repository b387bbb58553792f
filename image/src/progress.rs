//! What a person sees while waiting: one line a step, and log messages on stderr.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// The steps of a verb, one at a time. Nothing is drawn where stderr is no terminal.
pub struct Steps(ProgressBar);

impl Steps {
    /// For a verb of this many steps.
    pub fn new(count: u64) -> Self {
        let bar = ProgressBar::new(count);
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{pos}/{len}] {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(200));
        Self(bar)
    }

    /// Ends the step before, begins the next.
    pub fn begin(&self, what: &str) {
        self.0.inc(1);
        self.0.set_message(what.to_owned());
    }

    /// Says what came of it all.
    pub fn end(&self, what: &str) {
        self.0.finish_and_clear();
        log::info!("{what}");
    }
}

struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::Level::Info
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            match record.level() {
                log::Level::Info => eprintln!("keel-image: {}", record.args()),
                level => eprintln!("keel-image: {}: {}", level.as_str().to_lowercase(), record.args()),
            }
        }
    }

    fn flush(&self) {}
}

/// Sends log messages to stderr.
pub fn log_to_stderr() {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}
