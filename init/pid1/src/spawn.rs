//! Starting a service's process: in its cgroup from its first instruction on, with a session, descriptors and
//! signals of its own.

use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};
use rustix::fs::{OFlags, fcntl_setfl};

use crate::sys::{self, Cloned};

/// A started process.
pub struct Process {
    /// Its ID.
    pub pid: u32,
    /// Its pidfd.
    pub pidfd: OwnedFd,
}

/// Where a service's standard streams lead.
pub enum Streams<'a> {
    /// Nowhere, and its output to a log.
    Log(BorrowedFd<'a>),
    /// All to a terminal, which becomes the service's controlling terminal.
    Terminal(&'static str),
}

/// Why a service could not be started.
pub struct Failure {
    /// In words, after the service's name.
    pub why: String,
    /// Whether trying again is of no use.
    pub for_good: bool,
}

/// What services find in their environment.
const ENVIRONMENT: [&CStr; 3] = [c"PATH=/usr/lib/keel:/usr/bin", c"HOME=/", c"TERM=linux"];

/// Starts a program. `cgroup`: its cgroup v2 folder, made if absent; without one it stays in the caller's.
pub fn spawn(argv: &[&str], streams: &Streams<'_>, cgroup: Option<&Path>) -> Result<Process, Failure> {
    let again = |what: &str, error: io::Error| Failure { why: format!("{what}: {error}"), for_good: false };
    // All that may allocate or fail is done before the fork.
    let argv: Result<Vec<CString>, _> = argv.iter().map(|text| CString::new(*text)).collect();
    let argv = argv.map_err(|error| again("has an argument with a zero byte", error.into()))?;
    let (input, output, terminal) = open_streams(streams)?;
    let folder = match cgroup {
        Some(path) => Some(open_cgroup(path).map_err(|error| again("cannot have its cgroup", error))?),
        None => None,
    };
    match sys::clone_into_cgroup(folder.as_ref().map(AsFd::as_fd)) {
        Ok(Cloned::Parent(pid, pidfd)) => Ok(Process { pid: u32::try_from(pid).unwrap_or(0), pidfd }),
        Ok(Cloned::Child) => {
            become_program(&argv, input.as_fd(), output.as_ref().map_or(input.as_fd(), AsFd::as_fd), terminal)
        }
        Err(error) => Err(again("cannot be forked", error)),
    }
}

type Opened<'a> = (OwnedFd, Option<OwnedFd>, bool);

fn open_streams<'a>(streams: &Streams<'a>) -> Result<Opened<'a>, Failure> {
    let fails = |what: String, for_good| move |error: io::Error| Failure { why: format!("{what}: {error}"), for_good };
    match streams {
        Streams::Log(log) => {
            let null = File::options().read(true).write(true).open("/dev/null");
            let null = null.map_err(fails("cannot open /dev/null".into(), false))?;
            let log = log.try_clone_to_owned().map_err(fails("cannot have its log".into(), false))?;
            Ok((null.into(), Some(log), false))
        }
        Streams::Terminal(path) => {
            // Without O_NONBLOCK a serial line without carrier would hold up PID 1 in this very call.
            let options = File::options().read(true).write(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path);
            let terminal = options.map_err(fails(format!("has no terminal {path}"), true))?;
            let _ = fcntl_setfl(&terminal, OFlags::empty());
            Ok((terminal.into(), None, true))
        }
    }
}

fn open_cgroup(path: &Path) -> io::Result<OwnedFd> {
    fs::create_dir_all(path)?;
    Ok(File::open(path)?.into())
}

/// In the child: never returns.
fn become_program(argv: &[CString], input: BorrowedFd<'_>, output: BorrowedFd<'_>, terminal: bool) -> ! {
    let _ = rustix::process::setsid();
    let _ = rustix::stdio::dup2_stdin(input);
    let _ = rustix::stdio::dup2_stdout(output);
    let _ = rustix::stdio::dup2_stderr(output);
    if terminal {
        let _ = rustix::process::ioctl_tiocsctty(rustix::stdio::stdin());
    }
    sys::close_all_but_stdio();
    sys::reset_signals();
    if let Some(program) = argv.first() {
        let Err(error) = nix::unistd::execve(program, argv, &ENVIRONMENT);
        let message = format!("error: cannot execute {}: {}\n", program.to_string_lossy(), error.desc());
        let _ = rustix::io::write(rustix::stdio::stderr(), message.as_bytes());
    }
    sys::exit_now(127)
}

/// Kills everything in a service's cgroup, at once and whole (`cgroup.kill`, Linux 5.14).
pub fn kill_cgroup(path: &Path) {
    let _ = fs::write(path.join("cgroup.kill"), "1");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    fn run(argv: &[&str]) -> (String, i32) {
        let (mut reader, writer) = io::pipe().unwrap();
        let Ok(process) = spawn(argv, &Streams::Log(writer.as_fd()), None) else { panic!("not started") };
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let pid = rustix::process::Pid::from_raw(process.pid as i32);
        let (_, status) = rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()).unwrap().unwrap();
        (text, status.exit_status().unwrap_or(-1))
    }

    #[test]
    fn a_program_has_its_own_session_clean_signals_and_only_its_streams() {
        let script = "exec 2>&1; ls /proc/self/fd; cut -d' ' -f6 /proc/self/stat; echo $$; grep Sig /proc/self/status";
        let (text, code) = run(&["/bin/sh", "-c", script]);
        assert_eq!(code, 0, "{text}");
        // 3 is the folder that ls reads.
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["0", "1", "2", "3"]);
        assert_eq!(lines[4], lines[5], "leads its session");
        assert!(text.contains("SigBlk:\t0000000000000000"), "{text}");
        // Signals 32 and 33 are the C library's own; what an ancestor made of them can't be changed through it.
        let ignored = lines.iter().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        assert_eq!(u64::from_str_radix(ignored, 16).unwrap() & !0x1_8000_0000, 0, "{text}");
    }

    #[test]
    fn a_program_that_is_not_there_says_so_in_the_log() {
        let (text, code) = run(&["/nonexistent/program"]);
        assert_eq!(code, 127);
        assert!(text.contains("cannot execute /nonexistent/program: No such file"), "{text}");
    }

    #[test]
    fn a_missing_terminal_is_given_up() {
        assert!(matches!(spawn(&["/bin/true"], &Streams::Terminal("/dev/nonexistent"), None), Err(f) if f.for_good));
    }
}
