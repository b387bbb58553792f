//! Logs of services, in bounded memory: two memfds a service, a current and a previous part.
//!
//! Whoever asks for a log gets the memfds themselves, opened for reading, and PID 1 has no part in the reading.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use rustix::fs::{MemfdFlags, Mode, OFlags, memfd_create, open};

use crate::clock;

/// Bytes of one part; the oldest lines go when a second part is full.
pub const PART_BYTES: usize = 128 << 10;
/// Longest line; a longer one is continued in another.
const MAX_LINE_BYTES: usize = 2048;

/// One log.
#[derive(Default)]
pub struct Log {
    current: Option<File>,
    previous: Option<File>,
    written: usize,
    /// What has been read of a line that isn't over yet.
    partial: Vec<u8>,
}

impl Log {
    /// Adds output as it was read, and stamps each line that it completes.
    pub fn add(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in piece.chunks(MAX_LINE_BYTES) {
                self.partial.extend_from_slice(part);
                if self.partial.ends_with(b"\n") || self.partial.len() >= MAX_LINE_BYTES {
                    self.end_line();
                }
            }
        }
    }

    /// Adds one line.
    pub fn add_line(&mut self, text: &str) {
        self.add(text.as_bytes());
        self.end_line();
    }

    /// Descriptors for reading, the older part first; each has an offset of its own.
    pub fn readers(&self) -> Vec<OwnedFd> {
        let parts = self.previous.iter().chain(self.current.iter());
        parts.filter_map(|part| reopen(part).ok()).collect()
    }

    /// Its newest bytes, at most so many; they may begin within a line.
    pub fn tail(&self, max_bytes: u64) -> String {
        let mut newest = Vec::new();
        let mut room = max_bytes;
        for part in self.current.iter().chain(self.previous.iter()) {
            let length = part.metadata().map_or(0, |metadata| metadata.len());
            let count = length.min(room);
            let mut bytes = vec![0; usize::try_from(count).unwrap_or(0)];
            if part.read_exact_at(&mut bytes, length - count).is_err() {
                break;
            }
            room -= count;
            bytes.append(&mut newest);
            newest = bytes;
        }
        String::from_utf8_lossy(&newest).into_owned()
    }

    fn end_line(&mut self) {
        let mut line = clock::rfc3339(clock::unix_ms()).into_bytes();
        line.push(b' ');
        while self.partial.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            self.partial.pop();
        }
        line.append(&mut self.partial);
        line.push(b'\n');
        if self.current.is_none() || self.written.saturating_add(line.len()) > PART_BYTES {
            let Ok(part) = memfd_create("log", MemfdFlags::CLOEXEC) else { return };
            self.previous = self.current.replace(File::from(part));
            self.written = 0;
        }
        if let Some(part) = &mut self.current {
            // A log that can't be written is lost; there is nobody to tell.
            let _ = part.write_all(&line);
            self.written = self.written.saturating_add(line.len());
        }
    }
}

/// A file of memory for reading alone, with an offset of its own.
pub fn reopen(file: &File) -> rustix::io::Result<OwnedFd> {
    open(format!("/proc/self/fd/{}", file.as_raw_fd()), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn text(log: &Log) -> String {
        let mut text = String::new();
        for part in log.readers() {
            File::from(part).read_to_string(&mut text).unwrap();
        }
        text
    }

    #[test]
    fn lines_are_stamped_once_however_they_arrive() {
        let mut log = Log::default();
        log.add(b"one\ntw");
        log.add(b"o\r\nthr");
        let lines: Vec<String> = text(&log).lines().map(|line| line[25..].to_owned()).collect();
        assert_eq!(lines, ["one", "two"]);
        log.add_line("ee");
        assert!(text(&log).ends_with("Z three\n"));
    }

    #[test]
    fn a_log_stays_within_two_parts_and_keeps_the_newest() {
        let mut log = Log::default();
        for number in 0..20_000 {
            log.add_line(&format!("line {number}"));
        }
        let text = text(&log);
        assert!(text.len() <= 2 * PART_BYTES && text.len() > PART_BYTES);
        assert!(text.ends_with("line 19999\n"));
    }

    #[test]
    fn a_tail_reaches_back_into_the_part_before() {
        let mut log = Log::default();
        for number in 0..20_000 {
            log.add_line(&format!("line {number}"));
        }
        let (text, tail) = (text(&log), log.tail(PART_BYTES as u64));
        assert_eq!(tail.len(), PART_BYTES);
        assert!(text.ends_with(&tail));
        assert_eq!(log.tail(u64::MAX), text);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let mut log = Log::default();
        log.add(&vec![b'x'; 5 * MAX_LINE_BYTES + 1]);
        assert_eq!(text(&log).lines().count(), 5);
    }

    #[test]
    fn readers_cannot_write() {
        let mut log = Log::default();
        log.add_line("x");
        let reader = log.readers().remove(0);
        assert!(File::from(reader).write(b"y").is_err());
    }
}
