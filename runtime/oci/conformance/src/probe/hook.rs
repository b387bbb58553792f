//! Writes down what a hook is given: `probe hook FILE [exit CODE | hang]`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::see;

/// Appends one line to the file.
pub(super) fn run(words: &[String]) -> ExitCode {
    let mut input = String::new();
    let _ = io::stdin().take(1 << 20).read_to_string(&mut input);
    if let Some(path) = words.first()
        && let Err(error) = note(path, &input)
    {
        eprintln!("hook: write {path}: {error}");
        return ExitCode::from(95);
    }
    match words.get(1).map(String::as_str) {
        Some("hang") => super::steps::hold(),
        Some("exit") => ExitCode::from(words.get(2).and_then(|code| code.parse().ok()).unwrap_or(1)),
        _ => ExitCode::SUCCESS,
    }
}

fn note(path: &str, input: &str) -> io::Result<()> {
    let variables: serde_json::Map<String, Value> =
        std::env::vars().map(|(name, value)| (name, json!(value))).collect();
    let line = json!({
        "args": std::env::args().collect::<Vec<_>>(),
        "env": variables,
        "cwd": std::env::current_dir().ok().map(|path| path.to_string_lossy().into_owned()),
        "input": input,
        "state": serde_json::from_str::<Value>(input).unwrap_or(Value::Null),
        "namespaces": see::namespaces(),
        "fds": std::fs::read_dir("/proc/self/fd").map(|list| list.count()).unwrap_or(0),
        "root": std::fs::read_dir("/").map(|list| {
            let mut names: Vec<String> = list.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }).unwrap_or_default(),
    });
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(format!("{line}\n").as_bytes())
}
