//! The program on the host's own consoles: the panel, and a prompt for the verbs of `keelctl`.
//!
//! A verb runs as a process of its own (this same program), so that nothing a verb does can take the console away.
//! The terminal stays in its canonical mode, in which it edits lines itself; only its signals are turned off, and
//! Ctrl-C ends a line instead: at the prompt that drops the line, under a verb it stops the verb.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use keel_spec::api::{Health, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use rustix::stdio::stdin;
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, isatty, tcgetattr, tcsetattr};

use crate::client::Client;
use crate::error::{Failure, Result};
use crate::{cli, panel, words};

/// How often the host's state is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the host is looked at while it starts.
const RETRY_EVERY: Duration = Duration::from_millis(200);
/// Longest wait for the host's start before the console shows what there is.
const QUIET_START: Duration = Duration::from_secs(20);
/// Pause after an end of file: a terminal that is gone gives nothing else.
const EOF_PAUSE: Duration = Duration::from_secs(1);
/// How often it is looked whether a running verb has ended.
const VERB_POLL: Duration = Duration::from_millis(50);
/// Longest line that is kept.
const MAX_LINE_BYTES: usize = 4096;
/// What Ctrl-C sends.
const CTRL_C: u8 = 3;

/// What the console waited for.
enum Input {
    /// A line was typed.
    Line(String),
    /// Ctrl-C.
    Interrupt,
    /// The terminal gave an end of file.
    End,
    /// Nothing within the time.
    Nothing,
}

/// `keelctl console`. It doesn't end.
pub fn run(client: &Client) -> Result<()> {
    set_terminal_up();
    let mut console = Console { client, shown: None, was_up: true, pending: Vec::new(), prompt: true };
    console.wait_for_start();
    loop {
        let changed = console.refresh();
        if console.prompt {
            if changed {
                console.show_prompt();
            }
            match console.read(LOOK_EVERY)? {
                Input::Line(line) => {
                    console.line(&line)?;
                    console.show_prompt();
                }
                Input::Interrupt => {
                    println!();
                    console.show_prompt();
                }
                Input::End => {
                    std::thread::sleep(EOF_PAUSE);
                    println!();
                    console.show_prompt();
                }
                Input::Nothing => {}
            }
        } else {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// Turns the terminal's signals off and lets Ctrl-C end a line; everything else stays as it is.
fn set_terminal_up() {
    if !isatty(stdin()) {
        return;
    }
    if let Ok(mut termios) = tcgetattr(stdin()) {
        termios.local_modes.remove(LocalModes::ISIG);
        termios.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        let _ = tcsetattr(stdin(), OptionalActions::Now, &termios);
    }
}

struct Console<'a> {
    client: &'a Client,
    /// The panel that was shown last.
    shown: Option<String>,
    /// Whether the API answered last time, so that its going is told once.
    was_up: bool,
    /// Bytes that were read but are no whole line yet, or further lines.
    pending: Vec<u8>,
    prompt: bool,
}

impl Console<'_> {
    fn status(&self) -> Result<Status> {
        self.client.get("/keel/v1/status")
    }

    /// Waits until the API answers and all that is required has been started, so that the first panel is one that
    /// lasts; after a while it goes on without.
    fn wait_for_start(&self) {
        let deadline = Instant::now() + QUIET_START;
        while Instant::now() < deadline {
            if self.status().is_ok_and(|status| status.health != Health::Starting) {
                return;
            }
            std::thread::sleep(RETRY_EVERY);
        }
    }

    /// Shows the panel if the host's state isn't what was shown last. True: something was written.
    fn refresh(&mut self) -> bool {
        match self.status() {
            Ok(status) => {
                self.was_up = true;
                self.prompt = status.console_prompt;
                let panel = panel::render(&status);
                if self.shown.as_ref() == Some(&panel) {
                    return false;
                }
                print!("\n{panel}");
                if status.console_prompt {
                    println!("Type `help` for what can be done here.");
                }
                self.shown = Some(panel);
                true
            }
            Err(failure) if self.was_up => {
                self.was_up = false;
                self.shown = None;
                println!("\nThe API does not answer ({failure}). Waiting for it.");
                true
            }
            Err(_) => false,
        }
    }

    fn show_prompt(&self) {
        print!("keel> ");
        let _ = std::io::stdout().flush();
    }

    fn line(&mut self, line: &str) -> Result<()> {
        let words = match words::split(line) {
            Ok(words) => words,
            Err(error) => {
                println!("{error}");
                return Ok(());
            }
        };
        let words = words.strip_prefix(&["keelctl".to_owned()]).unwrap_or(&words);
        match words.first().map(String::as_str) {
            None => return Ok(()),
            Some("console") => {
                println!("This is the console.");
                return Ok(());
            }
            Some("clear" | "panel") => {
                self.shown = None;
                self.refresh();
                return Ok(());
            }
            Some(_) if words.len() > cli::MAX_WORDS => {
                println!("more than {} words are too many", cli::MAX_WORDS);
                return Ok(());
            }
            Some(_) => {}
        }
        // A null device as input: the console itself goes on reading the terminal.
        let spawned =
            Command::new("/proc/self/exe").arg0("keelctl").args(words).stdin(std::process::Stdio::null()).spawn();
        match spawned {
            Ok(child) => self.attend(child),
            Err(error) => {
                println!("cannot start {:?}: {error}", words.first().map_or("", String::as_str));
                Ok(())
            }
        }
    }

    /// Waits for a verb; Ctrl-C or a typed line stops it.
    fn attend(&mut self, mut child: Child) -> Result<()> {
        loop {
            match child.try_wait() {
                Ok(None) => {}
                Ok(Some(status)) => {
                    if let Some(code @ 1..) = status.code() {
                        println!("(exit code {code})");
                    }
                    return Ok(());
                }
                Err(error) => {
                    println!("cannot wait for the verb: {error}");
                    return Ok(());
                }
            }
            match self.read(VERB_POLL)? {
                Input::Interrupt | Input::Line(_) => {
                    if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                        let _ = kill_process(pid, Signal::INT);
                    }
                }
                Input::End => std::thread::sleep(VERB_POLL),
                Input::Nothing => {}
            }
        }
    }

    /// The next line that was typed, if one comes within `limit`.
    fn read(&mut self, limit: Duration) -> Result<Input> {
        if let Some(input) = self.take_line() {
            return Ok(input);
        }
        let mut wait = [PollFd::from_borrowed_fd(stdin(), PollFlags::IN)];
        let limit =
            Timespec { tv_sec: i64::try_from(limit.as_secs()).unwrap_or(1), tv_nsec: i64::from(limit.subsec_nanos()) };
        match poll(&mut wait, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(Input::Nothing),
            Ok(_) => {}
            Err(error) => return Err(Failure::unavailable(format!("cannot wait for the terminal: {error}"))),
        }
        let mut buffer = [0; 1024];
        match rustix::io::read(stdin(), &mut buffer) {
            Ok(0) | Err(rustix::io::Errno::IO) => Ok(Input::End),
            Ok(count) => {
                self.pending.extend(buffer.iter().take(count));
                Ok(self.take_line().unwrap_or(Input::Nothing))
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(Input::Nothing),
            Err(error) => Err(Failure::unavailable(format!("cannot read the terminal: {error}"))),
        }
    }

    fn take_line(&mut self) -> Option<Input> {
        take_line(&mut self.pending)
    }
}

/// Takes the first line out of what was read. A line that is too long is dropped, as by Ctrl-C.
fn take_line(pending: &mut Vec<u8>) -> Option<Input> {
    let end = pending.iter().position(|byte| matches!(*byte, b'\n' | b'\r' | CTRL_C));
    let Some(end) = end else {
        if pending.len() > MAX_LINE_BYTES {
            pending.clear();
            return Some(Input::Interrupt);
        }
        return None;
    };
    let interrupted = pending.get(end) == Some(&CTRL_C);
    let line: Vec<u8> = pending.drain(..=end).collect();
    if interrupted || line.len() > MAX_LINE_BYTES {
        return Some(Input::Interrupt);
    }
    Some(Input::Line(String::from_utf8_lossy(&line).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(bytes: &[u8]) -> Vec<String> {
        let mut pending = bytes.to_vec();
        let mut found = Vec::new();
        while let Some(input) = take_line(&mut pending) {
            found.push(match input {
                Input::Line(line) => line,
                Input::Interrupt => "^C".into(),
                Input::End | Input::Nothing => unreachable!(),
            });
        }
        found
    }

    #[test]
    fn lines_and_interrupts_are_told_apart() {
        assert_eq!(inputs(b"status\nps -a\nlogs\x03half"), ["status", "ps -a", "^C"]);
        assert_eq!(inputs(b"serial\r"), ["serial"]);
    }

    #[test]
    fn bytes_without_end_are_dropped() {
        assert_eq!(inputs(&[b'x'; 5000]), ["^C"]);
        assert_eq!(inputs(b"\xff\xfe\n").len(), 1);
    }
}
