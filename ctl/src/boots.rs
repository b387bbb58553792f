//! `boots`: the history of a machine's boots, and what was said last in one.

use std::fmt::Write as _;

use keel_spec::api::ErrorCode;
use keel_spec::api::boots::{Boot, BootEnd, BootTrial, TrialOutcome};
use keel_spec::tuf::Time;

use crate::cli::WhichBoot;
use crate::client::{Client, parse};
use crate::error::{Failure, Result};
use crate::status::duration;

/// `keelctl boots [NUMBER | last]`
pub fn boots(client: &Client, which: Option<WhichBoot>, json: bool) -> Result<()> {
    let text = client.request("GET", "/keel/v1/boots", b"")?;
    let boots: Vec<Boot> = parse(&text)?;
    let Some(which) = which else {
        print!("{}", if json { text } else { render(&boots) });
        return Ok(());
    };
    let boot = find(&boots, which)?;
    let log = match client.request("GET", &format!("/keel/v1/boots/{}/log", boot.number), b"") {
        Err(failure) if failure.code == ErrorCode::NotFound => String::new(),
        other => other?,
    };
    if json {
        println!("{}", serde_json::json!({ "boot": boot, "log": log }));
    } else {
        print!("{}{}", render_one(boot), plain(&log));
    }
    Ok(())
}

fn find(boots: &[Boot], which: WhichBoot) -> Result<&Boot> {
    let found = match which {
        WhichBoot::Number(number) => boots.iter().find(|boot| boot.number == number),
        WhichBoot::Last => boots.iter().find(|boot| boot.end.is_some()),
    };
    found.ok_or_else(|| {
        let message = "show a boot: the host remembers no such one; `keelctl boots` lists those that it does";
        Failure::new(ErrorCode::NotFound, message)
    })
}

fn render(boots: &[Boot]) -> String {
    let mut text =
        format!("{:>6}  {:<22}{:<10}{:<18}{:<6}{:<22}ENDED\n", "BOOT", "STARTED", "RAN", "RELEASE", "SLOT", "TRIAL");
    for boot in boots {
        let trial = boot.trial.as_ref().map_or_else(|| "-".into(), describe_trial);
        let ended = boot.end.as_ref().map_or_else(|| "runs".into(), describe_end);
        let slot = if boot.slot.is_empty() { "?" } else { &boot.slot };
        let ran = if boot.ran_ms == 0 { "?".into() } else { duration(boot.ran_ms) };
        let version = boot.version.to_string();
        let started = started(boot);
        let _ = writeln!(
            text,
            "{:>6}  {started:<22}{ran:<10}{version:<18}{slot:<6}{trial:<22}{}",
            boot.number,
            plain_line(&ended)
        );
    }
    text
}

fn render_one(boot: &Boot) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{}", plain_line(value));
    };
    line("boot", &boot.number.to_string());
    line("started", &started(boot));
    line("release", &boot.version.to_string());
    line("slot", &boot.slot);
    if let Some(trial) = &boot.trial {
        line("trial", &describe_trial(trial));
        if !trial.reason.is_empty() {
            line("", &trial.reason);
        }
    }
    line("ran", &duration(boot.ran_ms));
    line("ended", &boot.end.as_ref().map_or_else(|| "runs".into(), describe_end));
    text.push('\n');
    text
}

/// `?`: the clock wasn't known to be right, so it was then or later.
fn started(boot: &Boot) -> String {
    match (boot.started_unix_s, boot.clock_known) {
        (0, _) => "?".into(),
        (at, true) => Time(at).for_people(),
        (at, false) => format!("{}?", Time(at).for_people()),
    }
}

fn describe_trial(trial: &BootTrial) -> String {
    let outcome = match trial.outcome {
        TrialOutcome::Passed => "passed",
        TrialOutcome::Failed => "failed",
        TrialOutcome::Undecided => "undecided",
    };
    match trial.tries {
        0 => format!("try {}: {outcome}", trial.attempt),
        tries => format!("try {} of {tries}: {outcome}", trial.attempt),
    }
}

fn describe_end(end: &BootEnd) -> String {
    let mut text = end.cause.word().to_owned();
    if !end.by.is_empty() {
        let _ = write!(text, " by {}", end.by);
    }
    if !end.reason.is_empty() {
        let _ = write!(text, ": {}", end.reason);
    }
    text
}

/// Without what could drive a terminal: the kernel's messages may quote anything.
fn plain(text: &str) -> String {
    text.chars().filter(|char| !char.is_control() || matches!(char, '\n' | '\t')).collect()
}

fn plain_line(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boots() -> Vec<Boot> {
        let text = r#"[
            {"number":9,"boot_id":"c","started_unix_s":1795311050,"clock_known":true,"version":"1.0.0","slot":"a","ran_ms":61000},
            {"number":8,"boot_id":"b","version":"2.0.0","slot":"b","ran_ms":9000,"started_unix_s":1795311000,
             "trial":{"attempt":2,"tries":3,"outcome":"failed","reason":"container web not up"},
             "end":{"cause":"trial-failed","by":"updater","reason":"container \u001b[2J web not up"}}]"#;
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_boot_is_a_row_that_tells_how_it_ended() {
        let text = render(&boots());
        let rows: Vec<&str> = text.lines().collect();
        assert!(rows[1].ends_with("runs") && rows[1].contains("1m 1s"), "{text}");
        assert!(rows[2].contains("try 2 of 3: failed") && rows[2].contains("UTC?"), "{text}");
        assert!(rows[2].contains("trial-failed by updater: container") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn the_last_one_is_the_one_before_this() {
        assert_eq!(find(&boots(), WhichBoot::Last).unwrap().number, 8);
        assert_eq!(find(&boots(), WhichBoot::Number(9)).unwrap().number, 9);
        assert_eq!(find(&boots(), WhichBoot::Number(1)).unwrap_err().code, ErrorCode::NotFound);
    }
}
