//! Takes steps in order, an answer in JSON on a line each: `{"ok": …}` or `{"errno": n}`.

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{files, see, system};

/// A probe that was told to hold ends by itself after this long, so that nothing outlives a test run by much.
const MAX_HOLD_S: u64 = 120;

/// One step: its name and arguments.
pub(super) struct Step<'a> {
    /// What to do.
    pub name: &'a str,
    words: &'a [Value],
}

impl<'a> Step<'a> {
    /// Argument `at` as text.
    pub(super) fn text(&self, at: usize) -> io::Result<&'a str> {
        self.words.get(at).and_then(Value::as_str).ok_or_else(|| self.wrong(at))
    }

    /// Argument `at` as a number.
    pub(super) fn number(&self, at: usize) -> io::Result<i64> {
        self.words.get(at).and_then(Value::as_i64).ok_or_else(|| self.wrong(at))
    }

    /// All arguments from `at` on, as texts.
    pub(super) fn texts(&self, at: usize) -> Vec<&'a str> {
        self.words.iter().skip(at).filter_map(Value::as_str).collect()
    }

    fn wrong(&self, at: usize) -> io::Error {
        io::Error::other(format!("step {} has no good argument {at}", self.name))
    }
}

/// Takes all steps; ends with code 0 even if some fail, since that is what is asked about.
pub(super) fn run(script: &str) -> ExitCode {
    eprintln!("probe ran");
    let script: Value = match serde_json::from_str(script) {
        Ok(script) => script,
        Err(error) => {
            eprintln!("probe: steps aren't JSON: {error}");
            return ExitCode::from(98);
        }
    };
    for step in script.as_array().into_iter().flatten() {
        let words = step.as_array().map(Vec::as_slice).unwrap_or_default();
        let name = words.first().and_then(Value::as_str).unwrap_or_default();
        let step = Step { name, words: words.get(1..).unwrap_or_default() };
        if let Some(code) = act(&step) {
            return code;
        }
    }
    ExitCode::SUCCESS
}

/// Takes one step; a code ends the program.
fn act(step: &Step) -> Option<ExitCode> {
    match step.name {
        "exit" => return Some(ExitCode::from(step.number(0).unwrap_or(97) as u8)),
        "hold" => {
            answer(Ok(json!("holding")));
            return Some(hold());
        }
        "print" => {
            let _ = io::stdout().write_all(step.text(0).unwrap_or_default().as_bytes());
            let _ = io::stdout().flush();
        }
        "complain" => eprint!("{}", step.text(0).unwrap_or_default()),
        _ => answer(result(step)),
    }
    None
}

fn result(step: &Step) -> io::Result<Value> {
    match step.name {
        "see" => see::everything(),
        "stdin" => {
            let mut text = String::new();
            io::stdin().take(1 << 20).read_to_string(&mut text)?;
            Ok(json!(text))
        }
        _ => match files::step(step).or_else(|| system::step(step)) {
            Some(result) => result,
            None => Err(io::Error::other(format!("no step is called {:?}", step.name))),
        },
    }
}

fn answer(result: io::Result<Value>) {
    let line = match result {
        Ok(value) => json!({ "ok": value }),
        Err(error) => match error.raw_os_error() {
            Some(errno) => json!({ "errno": errno }),
            None => json!({ "wrong": error.to_string() }),
        },
    };
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// Waits for a signal, bounded.
pub(super) fn hold() -> ExitCode {
    let _ = crate::sys::call(libc::SYS_alarm, [MAX_HOLD_S, 0, 0, 0, 0, 0]);
    std::thread::sleep(std::time::Duration::from_secs(MAX_HOLD_S));
    ExitCode::from(96)
}
