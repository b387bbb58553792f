//! Passes on what a service tells of its readiness (sd_notify(3)).
//!
//! Whoever started this program waits at `NOTIFY_SOCKET`, a socket of the host that the container can't reach. So the
//! container gets one of its own, `/run/notify/notify.sock`, as with runc. `start`, and `run --detach`, wait there until the
//! service is ready or has ended, and then tell the host so, with the process ID by which the host knows it; `run` in the
//! foreground passes everything on until the end. Of what the container says only words about itself are passed on: it
//! can't name another main process or hand over descriptors.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{CWD, Mode};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

use super::Result;
use super::record::Folder;
use super::report::{Doing, Failure};
use crate::spec::{Mount, Spec};

/// Folder of the socket in the container.
const INSIDE: &str = "/run/notify";
/// Name of the socket.
const SOCKET: &str = "notify.sock";
/// Longest message, as systemd takes them.
const MAX_MESSAGE: usize = 4096;
/// Most messages that are passed on at once, before others have their turn.
const MAX_AT_ONCE: usize = 64;
/// What a container may tell of itself.
const PASSED: [&str; 9] = [
    "READY",
    "RELOADING",
    "STOPPING",
    "STATUS",
    "ERRNO",
    "WATCHDOG",
    "WATCHDOG_USEC",
    "EXTEND_TIMEOUT_USEC",
    "MONOTONIC_USEC",
];

/// Whether somebody waits to be told.
pub(super) fn wanted() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some_and(|path| !path.is_empty())
}

/// Makes the folder of the container's socket, and has it mounted and named inside.
pub(super) fn prepare(folder: &Folder, spec: &mut Spec) -> Result<()> {
    let path = folder.notify();
    std::fs::create_dir(&path).doing(|| format!("make {}", path.display()))?;
    // The folder above keeps others out; inside, any user may tell.
    rustix::fs::chmodat(CWD, &path, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())?;
    spec.mounts.push(Mount {
        destination: INSIDE.into(),
        kind: Some("bind".into()),
        source: Some(path.to_string_lossy().into_owned()),
        options: ["bind", "ro", "nosuid", "nodev", "noexec"].map(String::from).to_vec(),
        ..Mount::default()
    });
    spec.process.env.retain(|e| !e.starts_with("NOTIFY_SOCKET="));
    spec.process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    Ok(())
}

/// The container's socket, and the way to the host's.
pub(super) struct Proxy {
    inside: OwnedFd,
    host: OwnedFd,
    pid: u32,
    told: bool,
}

impl Proxy {
    /// Listens for a container that was prepared, whose first process is `pid`; `None`: nobody waits, or it wasn't.
    pub(super) fn listen(folder: &Folder, pid: u32) -> Result<Option<Self>> {
        let path = folder.notify();
        let Some(host) = std::env::var_os("NOTIFY_SOCKET").filter(|h| !h.is_empty() && path.is_dir()) else {
            return Ok(None);
        };
        let host = PathBuf::from(host);
        let step = || format!("connect to NOTIFY_SOCKET {}", host.display());
        let to = socket().doing(step)?;
        rustix::net::connect(&to, &address(&host)?).doing(step)?;
        let step = || format!("listen at {}", path.join(SOCKET).display());
        let inside = socket().doing(step)?;
        // Of a start that failed.
        let _ = std::fs::remove_file(path.join(SOCKET));
        // Whatever the length of the path is: the kernel limits it to 108 bytes.
        let short = folder.within(&format!("notify/{SOCKET}"));
        rustix::net::bind(&inside, &SocketAddrUnix::new(short.as_path()).doing(step)?).doing(step)?;
        rustix::fs::chmodat(CWD, path.join(SOCKET), Mode::from_raw_mode(0o777), rustix::fs::AtFlags::empty())
            .doing(step)?;
        Ok(Some(Self { inside, host: to, pid, told: false }))
    }

    /// To be polled for input.
    pub(super) fn watched(&self) -> BorrowedFd<'_> {
        self.inside.as_fd()
    }

    /// Passes on what has come.
    pub(super) fn pass(&mut self) -> io::Result<()> {
        for _ in 0..MAX_AT_ONCE {
            let mut buffer = [0u8; MAX_MESSAGE];
            let length = match rustix::net::recv(&self.inside, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            let (message, ready) = about_itself(&String::from_utf8_lossy(&buffer[..length]));
            if ready && !self.told {
                self.told = true;
                self.tell(&format!("MAINPID={}\n{message}", self.pid))?;
            } else if !message.is_empty() {
                self.tell(&message)?;
            }
        }
        Ok(())
    }

    fn tell(&self, message: &str) -> io::Result<()> {
        rustix::net::send(&self.host, message.as_bytes(), SendFlags::NOSIGNAL).map(drop).map_err(Into::into)
    }

    /// Waits until the service has said that it is ready, or has ended: as long as that takes.
    pub(super) fn until_ready(mut self, process: BorrowedFd<'_>) -> Result<()> {
        while !self.told {
            let mut fds = [PollFd::new(&self.inside, PollFlags::IN), PollFd::from_borrowed_fd(process, PollFlags::IN)];
            match rustix::event::poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).doing(|| "wait for the container's readiness".into()),
            }
            let ended = !fds[1].revents().is_empty();
            self.pass().doing(|| "pass the container's readiness on".into())?;
            if ended {
                break;
            }
        }
        Ok(())
    }
}

fn socket() -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}

/// A path, or with `@` before it a name in the abstract namespace.
fn address(path: &Path) -> Result<SocketAddrUnix> {
    use std::os::unix::ffi::OsStrExt;
    let named = match path.as_os_str().as_bytes() {
        [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name),
        [b'/', ..] => SocketAddrUnix::new(path),
        _ => return Err(Failure::new(format!("NOTIFY_SOCKET {}: a path or @NAME is known", path.display()))),
    };
    named.doing(|| format!("take NOTIFY_SOCKET {}", path.display()))
}

/// The lines that may be passed on, and whether one says that the service is ready.
fn about_itself(message: &str) -> (String, bool) {
    let known = |line: &&str| line.split_once('=').is_some_and(|(name, _)| PASSED.contains(&name));
    let lines: Vec<&str> = message.lines().filter(known).collect();
    (lines.join("\n"), lines.contains(&"READY=1"))
}

#[cfg(test)]
mod tests {
    use super::about_itself;

    #[test]
    fn a_container_tells_of_itself_alone() {
        let said = "READY=1\nMAINPID=1\nSTATUS=serving\nFDSTORE=1\nnonsense\nBARRIER=1\n";
        assert_eq!(about_itself(said), ("READY=1\nSTATUS=serving".to_owned(), true));
        assert_eq!(about_itself("READY=0\nWATCHDOG=1"), ("READY=0\nWATCHDOG=1".to_owned(), false));
        assert_eq!(about_itself("\0"), (String::new(), false));
    }
}
