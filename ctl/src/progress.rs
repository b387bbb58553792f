//! How far an install is: a bar on a terminal, a line for each tenth elsewhere.

use std::io::Write as _;

/// Cells of the bar.
const CELLS: u64 = 30;

/// Shows how far something is.
pub struct Progress {
    terminal: bool,
    last: Option<(String, u64)>,
}

impl Progress {
    /// For standard error.
    pub fn new() -> Self {
        Self { terminal: rustix::termios::isatty(rustix::stdio::stderr()), last: None }
    }

    /// Shows a step, unless it looks like the last one.
    pub fn step(&mut self, stage: &str, done_bytes: u64, total_bytes: u64) {
        let percent = percent(done_bytes, total_bytes);
        let grain = if self.terminal { 1 } else { 10 };
        let key = (stage.to_owned(), percent / grain);
        if self.last.as_ref() == Some(&key) {
            return;
        }
        let new_stage = self.last.as_ref().is_none_or(|(last, _)| last != stage);
        let mut err = std::io::stderr().lock();
        let text = render(stage, done_bytes, total_bytes);
        let _ = match (self.terminal, new_stage && self.last.is_some()) {
            (true, true) => write!(err, "\n\r{text}"),
            (true, false) => write!(err, "\r{text}"),
            (false, _) => writeln!(err, "{text}"),
        };
        let _ = err.flush();
        self.last = Some(key);
    }

    /// Ends the bar's line.
    pub fn finish(&mut self) {
        if self.terminal && self.last.take().is_some() {
            eprintln!();
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

fn percent(done: u64, total: u64) -> u64 {
    (u128::from(done) * 100).checked_div(u128::from(total)).map_or(0, |percent| percent.min(100) as u64)
}

fn render(stage: &str, done: u64, total: u64) -> String {
    if total == 0 {
        return format!("{stage:<10} {}", size(done));
    }
    let percent = percent(done, total);
    let filled = usize::try_from(percent * CELLS / 100).unwrap_or(0);
    let cells = usize::try_from(CELLS).unwrap_or(0);
    format!("{stage:<10} [{:-<cells$}] {percent:>3}% of {}", "#".repeat(filled), size(total))
}

/// `12.3 MiB`
pub fn size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => return format!("{bytes} B"),
        1024..1_048_576 => (1 << 10, "KiB"),
        1_048_576..1_073_741_824 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_sizes() {
        assert_eq!(
            render("root", 5 << 20, 10 << 20),
            format!("root       [{}{}]  50% of 10.0 MiB", "#".repeat(15), "-".repeat(15))
        );
        assert_eq!(render("metadata", 100, 0), "metadata   100 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(percent(u64::MAX, u64::MAX), 100);
    }
}
