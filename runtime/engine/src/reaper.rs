//! The first process of a container that is run with `--init`: it starts the real one, passes signals on to it, and
//! waits for whatever else ends, so that nothing stays behind as a zombie. It ends with the real one's code.
//!
//! It is this very program, mounted read-only into the container: a host has no other for that.

#![allow(clippy::zombie_processes, reason = "it waits for every process there is")]

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Where it is in a container, by which it knows what it is to be.
pub const PATH: &str = "/sbin/docker-init";

/// Whether this program was executed to be that process.
pub fn is_wanted() -> bool {
    std::env::args_os().next().is_some_and(|name| name == PATH)
}

/// Runs what follows `--` on the command line, and ends with its code.
pub fn main() -> ! {
    let mut words = std::env::args_os().skip(1).peekable();
    let _ = words.next_if(|word| word == "--");
    let Some(program) = words.next() else {
        eprintln!("docker-init: nothing to run");
        std::process::exit(127);
    };
    // It inherits which signals are blocked, so it is started before any is.
    let child = start(&program, words.collect());
    let child = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
    let all = SigSet::all();
    // Taken one by one from here on.
    if let Err(error) = all.thread_block() {
        eprintln!("docker-init: cannot block signals: {error}");
        std::process::exit(125);
    }
    // It may have ended already, and nobody was told.
    if let Some(code) = reap(child) {
        std::process::exit(code);
    }
    loop {
        match all.wait() {
            Ok(Signal::SIGCHLD) => {
                if let Some(code) = reap(child) {
                    std::process::exit(code);
                }
            }
            // A terminal's, for background processes: the real one is in the foreground.
            Ok(Signal::SIGTTIN | Signal::SIGTTOU) => {}
            Ok(signal) => drop(kill(child, signal)),
            // One that has no name here.
            Err(_) => {}
        }
    }
}

/// Starts the real process, in a group of its own that has the terminal, so that what is typed to stop it reaches it
/// and its children once.
fn start(program: &OsString, words: Vec<OsString>) -> Child {
    match Command::new(program).args(words).process_group(0).spawn() {
        Ok(child) => {
            let stdin = std::io::stdin();
            if stdin.is_terminal()
                && let Some(group) = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0))
            {
                let _ = rustix::termios::tcsetpgrp(&stdin, group);
            }
            child
        }
        Err(error) => {
            eprintln!("docker-init: cannot execute {}: {error}", program.display());
            std::process::exit(if error.kind() == ErrorKind::NotFound { 127 } else { 126 });
        }
    }
}

/// Waits for all that has ended. The real process's code, if that has.
fn reap(child: Pid) -> Option<i32> {
    let mut ended = None;
    loop {
        let (pid, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return ended,
            Ok(_) | Err(Errno::EINTR) => continue,
            Err(_) => return ended,
        };
        if pid == child {
            ended = Some(code);
        }
    }
}
