//! How errors are told: in words on standard error, and in the log as engines read it.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

use super::args::Args;
use super::clock;

/// Why a command failed, and what to exit with.
#[derive(Debug)]
pub(super) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// With an exit code of its own.
    pub(super) fn exits(mut self, code: u8) -> Self {
        self.code = code;
        self
    }
}

/// An error and its sources in one line.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            message = format!("{message}: {inner}");
            source = inner.source();
        }
        Self::new(message)
    }
}

/// Says what a command was doing.
pub(super) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> super::Result<T>;
}

impl<T, E: Into<Failure>> Doing<T> for Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> super::Result<T> {
        self.map_err(|e| {
            let inner: Failure = e.into();
            Failure { message: format!("{}: {}", what(), inner.message), code: inner.code }
        })
    }
}

/// Tells why a command failed; returns its exit code.
pub(super) fn report(args: Option<&Args>, failure: &Failure) -> ExitCode {
    eprintln!("keel-oci: {}", failure.message);
    if let Some(args) = args {
        log(args, "error", &failure.message);
    }
    ExitCode::from(failure.code)
}

/// Tells what isn't as asked and yet no failure.
pub(super) fn warn(args: &Args, message: &str) {
    log(args, "warning", message);
}

/// Tells what is done, with `--debug`.
pub(super) fn debug(args: &Args, message: impl FnOnce() -> String) {
    if args.has("debug") {
        log(args, "debug", &message());
    }
}

/// Whether the log's format is one that is known.
pub(super) fn check(args: &Args) -> super::Result<()> {
    match args.text("log-format")? {
        None | Some("text" | "json" | "") => Ok(()),
        Some(other) => Err(Failure::new(format!("invalid log-format {other:?}: text and json are known"))),
    }
}

fn log(args: &Args, level: &str, message: &str) {
    let time = clock::rfc3339(clock::now_ns());
    let json = args.value("log-format").is_some_and(|f| f == "json");
    let line = if json {
        format!("{}\n", serde_json::json!({ "level": level, "msg": message, "time": time }))
    } else {
        format!("time={time:?} level={level} msg={message:?}\n")
    };
    match args.value("log") {
        // A log that can't be written must not hide what it would say: standard error has the errors.
        Some(path) if !path.is_empty() => {
            let file = OpenOptions::new().append(true).create(true).open(path);
            let _ = file.and_then(|mut f| f.write_all(line.as_bytes()));
        }
        _ if level != "error" => eprint!("{line}"),
        _ => {}
    }
}
