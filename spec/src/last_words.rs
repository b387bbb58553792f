//! What PID 1 leaves on the state partition when it ends a boot in order: how, at whose wish, and the last log lines.
//!
//! The updater of the next boot takes it into its history, as it takes what the kernel left in pstore. The text is a
//! line that names the format, lines of a key and a value, an empty line, and the log. Keys that aren't known are passed
//! over, so that the release before and the one after read each other's.

use std::fmt::Write as _;

/// First line.
const FORMAT: &str = "keel last words";
/// Longest log that is left, in bytes.
pub const MAX_LOG_BYTES: usize = 48 << 10;
/// Longest text that is read back, in bytes.
pub const MAX_BYTES: u64 = 64 << 10;
/// Longest value, in bytes.
const MAX_VALUE_BYTES: usize = 1024;

/// What PID 1 knew of a boot at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastWords {
    /// Kernel's random boot ID.
    pub boot_id: String,
    /// How it ended: the name of a [`crate::control::Shutdown`].
    pub how: String,
    /// The service that asked for it; `init` for PID 1 itself.
    pub by: String,
    /// Why, in words.
    pub reason: String,
    /// Whether it ended because nobody declared the release on trial good in time.
    pub trial_expired: bool,
    /// How long it ran, in milliseconds.
    pub ran_ms: u64,
    /// The last lines of all services' logs, by time.
    pub log: String,
}

impl LastWords {
    /// As text.
    pub fn render(&self) -> String {
        let mut text = format!("{FORMAT}\n");
        let mut line = |key: &str, value: &str| {
            let clean: String = value.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
            let cut = clean.get(..clean.floor_char_boundary(MAX_VALUE_BYTES)).unwrap_or_default();
            let _ = writeln!(text, "{key} {cut}");
        };
        line("boot-id", &self.boot_id);
        line("how", &self.how);
        line("by", &self.by);
        line("reason", &self.reason);
        line("ran-ms", &self.ran_ms.to_string());
        if self.trial_expired {
            line("trial", "expired");
        }
        let from = self.log.ceil_char_boundary(self.log.len().saturating_sub(MAX_LOG_BYTES));
        let _ = write!(text, "\n{}", self.log.get(from..).unwrap_or_default());
        text
    }

    /// From text; `None`: it is something else, or torn before its log begins.
    pub fn parse(text: &str) -> Option<Self> {
        let (head, log) = text.split_once("\n\n")?;
        let mut lines = head.lines();
        if lines.next()? != FORMAT {
            return None;
        }
        let mut words = Self { log: log.to_owned(), ..Self::default() };
        for (key, value) in lines.filter_map(|line| line.split_once(' ')) {
            match key {
                "boot-id" => words.boot_id = value.to_owned(),
                "how" => words.how = value.to_owned(),
                "by" => words.by = value.to_owned(),
                "reason" => words.reason = value.to_owned(),
                "ran-ms" => words.ran_ms = value.parse().unwrap_or(0),
                "trial" => words.trial_expired = value == "expired",
                _ => {}
            }
        }
        (!words.boot_id.is_empty()).then_some(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words() -> LastWords {
        LastWords {
            boot_id: "b0".into(),
            how: "reboot".into(),
            by: "runtime".into(),
            reason: "asked for over the API".into(),
            trial_expired: true,
            ran_ms: 77,
            log: "2026-11-22T01:02:03.456Z init: a\n\n2026-11-22T01:02:03.457Z init: b\n".into(),
        }
    }

    #[test]
    fn what_is_left_is_read_and_what_a_newer_release_adds_is_passed_over() {
        let text = words().render();
        assert_eq!(LastWords::parse(&text), Some(words()));
        assert_eq!(LastWords::parse(&text.replace("by runtime", "by runtime\nmood good\nodd")), Some(words()));
    }

    #[test]
    fn values_cannot_forge_lines_and_logs_keep_their_end() {
        let forged = LastWords { reason: "x\nby nobody".into(), ..words() };
        assert_eq!(LastWords::parse(&forged.render()).unwrap().by, "runtime");
        let long = LastWords { log: format!("{}end", "ü".repeat(MAX_LOG_BYTES)), ..words() };
        let text = long.render();
        assert!(text.len() as u64 <= MAX_BYTES && text.ends_with("üend"));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "\\PC*", cut in 0_usize..200) {
            let _ = LastWords::parse(&text);
            let whole = words().render();
            let _ = LastWords::parse(whole.get(..cut.min(whole.len())).unwrap_or_default());
        }
    }
}
