//! What a person at the machine sees: boot stages and failures, on the serial line and on the screen.
//!
//! Written straight to the terminals, never waiting: what a terminal doesn't take at once is lost to it.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;

use keel_spec::control::Stage;
use nix::libc::{O_NOCTTY, O_NONBLOCK};

use crate::clock;

/// Terminals that show messages. One that isn't there is passed over.
const TERMINALS: [&str; 2] = ["/dev/ttyS0", "/dev/tty0"];

/// Most boot stages that are kept; more are shown, but not kept.
const MAX_STAGES: usize = 48;

/// The terminals, and the boot stages so far.
#[derive(Default)]
pub struct Console {
    terminals: Vec<File>,
    /// Boot stages that are done.
    pub stages: Vec<Stage>,
    /// Lines that have been shown and not yet been taken for PID 1's own log.
    pub unlogged: Vec<String>,
}

impl Console {
    /// Opens the terminals.
    pub fn open() -> Self {
        let mut console = Self::default();
        for path in TERMINALS {
            let opened = File::options().write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path);
            console.terminals.extend(opened);
        }
        console
    }

    /// Shows a line with the time since kernel start before it.
    pub fn say(&mut self, text: &str) {
        let now_ms = clock::boot_ms();
        let line = format!("[{:3}.{:03}] {text}\n", now_ms / 1000, now_ms % 1000);
        for terminal in &mut self.terminals {
            let _ = terminal.write(line.as_bytes());
        }
        if self.unlogged.len() < 256 {
            self.unlogged.push(text.to_owned());
        }
    }

    /// Shows and keeps a boot stage that is done now.
    pub fn stage(&mut self, name: &str) {
        self.say(name);
        if self.stages.len() < MAX_STAGES {
            let (at_ms, idle_ms) = (clock::boot_ms(), clock::idle_ms());
            self.stages.push(Stage { name: name.to_owned(), at_ms, idle_ms });
        }
    }
}
