//! Log lines on standard error, `info: message`; PID 1 collects them per service and adds the time.

use std::io::Write as _;

use log::{LevelFilter, Log, Metadata, Record};

/// Longest line in bytes; the rest is cut, so that one message can't flush the log of a service.
const MAX_LINE_BYTES: usize = 2048;

struct Stderr;

/// Sends everything from `info` up to standard error from now on. Calling it again has no effect.
pub fn init() {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// An error and all its causes on one line, `a: b: c`.
pub fn chain(error: &dyn std::error::Error) -> String {
    /// Most causes that are told; a longer chain is a loop.
    const MAX_CAUSES: usize = 16;
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.take(MAX_CAUSES).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        // One write a line, so that lines of threads don't mix; a full or closed pipe loses the line, not the program.
        let _ = std::io::stderr().write_all(&line(record.level(), &record.args().to_string()));
    }

    fn flush(&self) {}
}

/// One line, control characters replaced: a message that quotes foreign bytes can't forge lines or drive a terminal.
fn line(level: log::Level, message: &str) -> Vec<u8> {
    let mut line = level.as_str().to_ascii_lowercase();
    line.push_str(": ");
    for character in message.chars() {
        if line.len() >= MAX_LINE_BYTES {
            line.push('…');
            break;
        }
        line.push(if character.is_control() { ' ' } else { character });
    }
    line.push('\n');
    line.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_whatever_is_in_it() {
        let line = String::from_utf8(line(log::Level::Warn, "a\nerror: forged\u{1b}[2J")).unwrap();
        assert_eq!(line, "warn: a error: forged [2J\n");
    }

    #[test]
    fn long_messages_are_cut() {
        let line = line(log::Level::Info, &"é".repeat(MAX_LINE_BYTES));
        assert!(line.len() < MAX_LINE_BYTES + 16);
    }
}
