//! A process that is set up and waits to be started, seen from the outside.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use serde::Serialize;

use crate::create::Parent;
use crate::error::Step;
use crate::wire::{self, Reply};
use crate::{Error, cgroup, rdt, steps};

/// How long a killed child is waited for.
const KILL_TIMEOUT_S: i64 = 5;

/// A process in a container that is set up and waits: its first one ([`crate::create`](fn@crate::create)) or a further
/// one ([`crate::exec`](fn@crate::exec)). Dropped unstarted, it is killed, and a cgroup that was made for it removed.
#[derive(Debug)]
pub struct Created {
    pub(crate) pid: u32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) socket: OwnedFd,
    pub(crate) parent: Parent,
    pub(crate) cgroup: CgroupGuard,
    pub(crate) class: rdt::Guard,
    pub(crate) program: String,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) started: bool,
}

/// Removes a cgroup that nothing came of.
#[derive(Debug)]
pub(crate) struct CgroupGuard(pub(crate) Option<PathBuf>);

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What is left over is found and removed by the caller's next start; there is nobody to tell here.
            let _ = cgroup::kill_all(path);
            let _ = cgroup::remove(path);
        }
    }
}

impl Created {
    /// Process ID in the caller's namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process as a descriptor.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The master end of its terminal, where `process.terminal` was asked for; a second call gets nothing.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Its network namespace.
    pub fn net_ns(&self) -> Result<OwnedFd, Error> {
        self.namespace("net")
    }

    /// Lets it execute its program; returns when that has happened or failed.
    pub fn start(mut self) -> Result<(), Error> {
        rustix::net::send(&self.socket, &[1], SendFlags::NOSIGNAL).host(|| "start the process".into())?;
        match self.reply()? {
            // Its end of the socket closed at the execution, or because it died. Only the former is a start, but a
            // program may also end before it could be asked: its exit tells which, to whoever reaps it.
            None => {
                self.keep();
                Ok(())
            }
            Some((other, _)) => Err(self.failure(other)),
        }
    }

    pub(crate) fn namespace(&self, name: &str) -> Result<OwnedFd, Error> {
        let path = format!("/proc/{}/ns/{name}", self.pid);
        rustix::fs::openat(CWD, &path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).host(|| format!("open {path}"))
    }

    /// Lets the child go on that waits for one byte.
    pub(crate) fn go(&self) -> Result<(), Error> {
        rustix::net::send(&self.socket, &[1], SendFlags::NOSIGNAL).host(|| "let the process go on".into()).map(drop)
    }

    pub(crate) fn send<T: Serialize>(&self, plan: &T, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        wire::send(self.socket.as_fd(), plan, fds).host(|| "send the plan to the container's process".into())
    }

    /// Waits until mounts are made.
    pub(crate) fn until_mounted(&self) -> Result<(), Error> {
        match self.reply()? {
            Some((Reply::Mounted, _)) => Ok(()),
            Some((other, _)) => Err(self.failure(other)),
            None => Err(Error::Gone("ended while its mounts were made")),
        }
    }

    /// Lets it wait for [`start_at`], without this process.
    pub fn leave(mut self) {
        self.keep();
    }

    /// Nothing is undone any more.
    fn keep(&mut self) {
        self.started = true;
        self.cgroup.0 = None;
        self.class.keep();
    }

    /// Waits until everything is set up.
    pub(crate) fn until_ready(mut self) -> Result<Self, Error> {
        match self.reply()? {
            Some((Reply::Ready { marks }, fds)) => {
                steps::add(marks);
                steps::mark("hear that all is set up");
                self.terminal = fds.into_iter().next();
                Ok(self)
            }
            Some((other, _)) => Err(self.failure(other)),
            None => Err(Error::Gone("ended while it was being set up")),
        }
    }

    fn reply(&self) -> Result<Option<(Reply, Vec<OwnedFd>)>, Error> {
        reply(self.socket.as_fd())
    }

    fn failure(&self, reply: Reply) -> Error {
        failure(reply, &self.program)
    }
}

/// Starts a container whose [`crate::Extras::listener`] is bound at this path; `program` is for messages.
pub fn start_at(listener: &Path, program: &str) -> Result<(), Error> {
    let step = || format!("start the process through {}", listener.display());
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.host(step)?;
    let address = SocketAddrUnix::new(listener).host(step)?;
    rustix::net::connect(&socket, &address).host(step)?;
    rustix::net::send(&socket, &[1], SendFlags::NOSIGNAL).host(step)?;
    match reply(socket.as_fd())? {
        None => Ok(()),
        Some((other, _)) => Err(failure(other, program)),
    }
}

fn reply(socket: BorrowedFd<'_>) -> Result<Option<(Reply, Vec<OwnedFd>)>, Error> {
    match wire::receive::<Reply>(socket) {
        Ok(reply) => Ok(reply),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(Error::Gone("didn't answer in time")),
        Err(e) if e.kind() == io::ErrorKind::ConnectionReset => Ok(None),
        Err(e) => Err(Error::Host { step: "hear from the container's process".into(), source: e }),
    }
}

fn failure(reply: Reply, program: &str) -> Error {
    match reply {
        Reply::Ready { .. } | Reply::Mounted => Error::Gone("answered out of turn"),
        Reply::Failed { step, errno, said } => {
            let source = said.map_or_else(|| io::Error::from_raw_os_error(errno), io::Error::other);
            Error::Inside { step, source }
        }
        Reply::Exec { hint, errno } => {
            Error::Exec { program: program.into(), hint, source: io::Error::from_raw_os_error(errno) }
        }
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        if self.started {
            return;
        }
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let timeout = Timespec { tv_sec: KILL_TIMEOUT_S, tv_nsec: 0 };
        let _ = rustix::event::poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout));
        if self.parent == Parent::Caller {
            let _ = rustix::process::waitid(
                WaitId::PidFd(self.pidfd.as_fd()),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
    }
}
