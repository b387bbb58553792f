//! `logs`: what a service wrote.

use std::io::Write as _;
use std::time::Duration;

use crate::client::{Client, encode};
use crate::error::{Failure, Result};

/// How often a followed log is asked for again.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// How much of what was shown is looked for in the next answer: old lines are dropped from a log's beginning.
const OVERLAP_BYTES: usize = 4096;

/// `keelctl logs SERVICE [-f]`. Following goes on until it is interrupted.
pub fn logs(client: &Client, service: &str, follow: bool, json: bool) -> Result<()> {
    let path = format!("/keel/v1/logs/{}", encode(service));
    let mut shown = String::new();
    loop {
        let text = client.request("GET", &path, b"")?;
        show(news(&shown, &text), json)?;
        if !follow {
            return Ok(());
        }
        shown = text;
        std::thread::sleep(FOLLOW_EVERY);
    }
}

fn show(text: &str, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = if json {
        text.lines().try_for_each(|line| writeln!(out, "{}", serde_json::json!({ "line": line })))
    } else {
        out.write_all(text.as_bytes())
    };
    written.and_then(|()| out.flush()).map_err(|error| Failure::unavailable(format!("cannot write the log: {error}")))
}

/// What of `text` comes after what was `shown`.
fn news<'a>(shown: &str, text: &'a str) -> &'a str {
    if let Some(rest) = text.strip_prefix(shown) {
        return rest;
    }
    let start = shown.ceil_char_boundary(shown.len().saturating_sub(OVERLAP_BYTES));
    let known = shown.get(start..).unwrap_or_default();
    text.rfind(known).and_then(|at| text.get(at + known.len()..)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_news_are_shown_even_when_old_lines_were_dropped() {
        assert_eq!(news("", "a\nb\n"), "a\nb\n");
        assert_eq!(news("a\nb\n", "a\nb\nc\n"), "c\n");
        let old = (0..2000).map(|n| format!("line {n}\n")).collect::<String>();
        let new = (1000..2010).map(|n| format!("line {n}\n")).collect::<String>();
        assert!(news(&old, &new).starts_with("line 2000\n"));
        assert_eq!(news("gone\n", "other\n"), "other\n");
    }
}
