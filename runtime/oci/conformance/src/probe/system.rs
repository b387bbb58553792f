//! Steps on processes, the terminal and the system.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use rustix::time::ClockId;
use serde_json::{Value, json};

use super::steps::Step;

/// Takes the step, if it is one of these.
pub(super) fn step(s: &Step) -> Option<io::Result<Value>> {
    Some(match s.name {
        "call" => call(s),
        "call32" => {
            s.number(0).map(|number| json!(crate::sys::call_32(number as u32, s.number(1).unwrap_or(0) as u32)))
        }
        "execute" => execute(s),
        "start" => start(s),
        "spawn" => spawn(s),
        "alloc" => s.number(0).map(alloc),
        "terminal" => terminal(),
        "clocks" => Ok(json!({
            "monotonic": rustix::time::clock_gettime(ClockId::Monotonic).tv_sec,
            "boottime": rustix::time::clock_gettime(ClockId::Boottime).tv_sec,
        })),
        "sethostname" => {
            s.text(0).and_then(|name| Ok(rustix::system::sethostname(name.as_bytes())?)).map(|()| Value::Null)
        }
        "ignore" => ignore(s),
        "descriptor" => descriptor(s),
        "notify" => notify(),
        "keyring-label" => crate::sys::session_keyring_label().map(|label| json!(label)),
        _ => return None,
    })
}

/// A system call of plain numbers: number, then up to six arguments.
fn call(s: &Step) -> io::Result<Value> {
    let mut arguments = [0u64; 6];
    for (at, argument) in arguments.iter_mut().enumerate() {
        *argument = s.number(at + 1).unwrap_or(0) as u64;
    }
    crate::sys::call(s.number(0)?, arguments).map(|result| json!(result))
}

/// Runs a program to its end: exit code and output.
fn execute(s: &Step) -> io::Result<Value> {
    let words = s.texts(0);
    let output =
        Command::new(words.first().copied().unwrap_or_default()).args(&words[1..]).stdin(Stdio::null()).output()?;
    Ok(json!({ "code": output.status.code(), "stdout": String::from_utf8_lossy(&output.stdout) }))
}

/// Starts a program and leaves it; its process ID.
fn start(s: &Step) -> io::Result<Value> {
    let words = s.texts(0);
    let mut command = Command::new(words.first().copied().unwrap_or_default());
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(json!(command.process_group(0).spawn()?.id()))
}

/// Starts so many copies that hold; how many could be started.
fn spawn(s: &Step) -> io::Result<Value> {
    let mut started = 0;
    for _ in 0..s.number(0)?.clamp(0, 64) {
        let mut command = Command::new("/bin/probe");
        command.arg("hold").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(_) => started += 1,
            Err(_) => break,
        }
    }
    Ok(json!(started))
}

/// Takes memory and touches it; how much.
fn alloc(bytes: i64) -> Value {
    let mut memory = vec![0u8; bytes.clamp(0, 1 << 30) as usize];
    memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
    json!(std::hint::black_box(&memory).len())
}

fn terminal() -> io::Result<Value> {
    let size = rustix::termios::tcgetwinsize(io::stdin()).ok();
    let name = rustix::termios::ttyname(io::stdin(), Vec::new()).ok();
    Ok(json!({
        "stdio": [io::stdin().is_terminal(), io::stdout().is_terminal(), io::stderr().is_terminal()],
        "rows": size.map(|s| s.ws_row), "columns": size.map(|s| s.ws_col),
        "name": name.map(|n| n.to_string_lossy().into_owned()),
        "controls": File::open("/dev/tty").is_ok(),
    }))
}

/// `probe peak FILE PROGRAM…`: runs it and writes its peak memory in KiB to the file.
pub(super) fn peak(words: &[String]) -> ExitCode {
    let [file, program, rest @ ..] = words else { return ExitCode::from(94) };
    let Ok(child) = Command::new(program).args(rest).spawn() else { return ExitCode::from(93) };
    match crate::sys::wait4(child.id()) {
        Ok((0, peak)) if std::fs::write(file, peak.to_string()).is_ok() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Lets a signal pass, by SIG_IGN through `sigaction` of the C library's stand-in: the shell's way, `trap '' N`.
fn ignore(s: &Step) -> io::Result<Value> {
    crate::sys::ignore(s.number(0)? as i32).map(|()| Value::Null)
}

/// What an inherited descriptor holds.
fn descriptor(s: &Step) -> io::Result<Value> {
    let Some(fd) = crate::sys::inherited(s.number(0)? as i32) else {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    };
    let mut text = vec![0; 4096];
    let length = rustix::io::pread(&fd, &mut text[..], 0)?;
    Ok(json!(String::from_utf8_lossy(&text[..length])))
}

/// Tells whoever waits at `NOTIFY_SOCKET` that the service is ready (sd_notify(3)).
fn notify() -> io::Result<Value> {
    let path = std::env::var("NOTIFY_SOCKET").map_err(|e| io::Error::other(e.to_string()))?;
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    socket.send_to(b"READY=1", path)?;
    Ok(Value::Null)
}
