//! Terminals: their masters are sent to whoever holds them, or connected to this process's own.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix};
use rustix::net::{SocketFlags, SocketType};
use rustix::termios::{OptionalActions, Termios};

use super::Result;
use super::create::size;
use super::report::Doing;
use crate::spec::ConsoleSize;

/// Sends a descriptor over a listening unix socket, as engines expect a terminal.
pub(super) fn send(path: &Path, terminal: BorrowedFd<'_>) -> Result<()> {
    let step = || format!("send the terminal to {}", path.display());
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let socket = socket.doing(step)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path).doing(step)?).doing(step)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [terminal];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    // The text is a name for the descriptor.
    rustix::net::sendmsg(&socket, &[IoSlice::new(b"/dev/ptmx")], &mut control, SendFlags::NOSIGNAL).doing(step)?;
    Ok(())
}

/// The size of this process's terminal, if it has one.
pub(super) fn own_size() -> Option<ConsoleSize> {
    let own = rustix::termios::tcgetwinsize(io::stdin()).ok()?;
    Some(size(own.ws_row, own.ws_col))
}

/// Connects a terminal's master to the standard streams. Its own terminal, if it has one, is raw meanwhile.
pub(super) struct Relay {
    master: OwnedFd,
    before: Option<Termios>,
    typing: bool,
    showing: bool,
}

impl Relay {
    pub(super) fn new(master: OwnedFd) -> Result<Self> {
        let before = rustix::termios::tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            let set = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, &raw);
            set.doing(|| "make this terminal raw".into())?;
        }
        Ok(Self { master, before, typing: true, showing: true })
    }

    /// What is to be polled: input, master.
    pub(super) fn watched(&self) -> Vec<(BorrowedFd<'_>, PollFlags)> {
        let wanted = |on: bool| if on { PollFlags::IN } else { PollFlags::empty() };
        // SAFETY-free: standard input stays open as long as the process.
        vec![(rustix::stdio::stdin(), wanted(self.typing)), (self.master.as_fd(), wanted(self.showing))]
    }

    /// Passes on what is there.
    pub(super) fn pass(&mut self, ready: &[bool]) {
        if ready.first() == Some(&true) && self.typing {
            self.typing = copy(rustix::stdio::stdin(), self.master.as_fd());
        }
        if ready.get(1) == Some(&true) && self.showing {
            self.showing = copy(self.master.as_fd(), rustix::stdio::stdout());
        }
    }

    /// Passes the size of this terminal on.
    pub(super) fn resize(&self) {
        if let Ok(size) = rustix::termios::tcgetwinsize(io::stdin()) {
            let _ = rustix::termios::tcsetwinsize(&self.master, size);
        }
    }

    /// Shows what is left; the other end is closed, so that this comes to an end.
    pub(super) fn finish(self) {
        let mut fds = [rustix::event::PollFd::new(&self.master, PollFlags::IN)];
        let at_once = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        while rustix::event::poll(&mut fds, Some(&at_once)).is_ok_and(|n| n > 0)
            && fds[0].revents().contains(PollFlags::IN)
            && copy(self.master.as_fd(), rustix::stdio::stdout())
        {}
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}

/// Copies what can be read at once; false when there will be no more.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 4096];
    let Ok(n) = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer)) else { return false };
    let mut rest = &buffer[..n];
    while !rest.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(to, rest)) {
            Ok(written) => rest = &rest[written..],
            Err(_) => return false,
        }
    }
    n > 0
}
