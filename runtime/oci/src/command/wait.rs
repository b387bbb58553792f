//! Waiting in the foreground for a process's end, passing on signals and what is typed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{WaitId, WaitIdOptions};

use super::Result;
use super::console::Relay;
use super::notify::Proxy;
use super::report::{Doing, Failure};
use crate::signals;

/// Signals of this process, blocked, to be read.
pub(super) struct Signals(OwnedFd);

impl Signals {
    pub(super) fn block() -> Result<Self> {
        Ok(Self(signals::block_all().doing(|| "block signals".into())?))
    }
}

/// Waits; returns what a shell would say of the end: its exit code, or 128 and the signal's number.
pub(super) fn until_end(
    pidfd: BorrowedFd<'_>,
    signals: &Signals,
    mut relay: Option<Relay>,
    mut proxy: Option<Proxy>,
) -> Result<u8> {
    loop {
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd, PollFlags::IN), PollFd::new(&signals.0, PollFlags::IN)];
        let watched = relay.as_ref().map(Relay::watched).unwrap_or_default();
        fds.extend(watched.iter().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)));
        fds.extend(proxy.as_ref().map(|p| PollFd::from_borrowed_fd(p.watched(), PollFlags::IN)));
        match rustix::event::poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).doing(|| "wait for the container".into()),
        }
        let ready: Vec<bool> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        drop(fds);
        drop(watched);
        if ready[1] {
            pass_on(pidfd, signals, relay.as_ref())?;
        }
        if let Some(relay) = &mut relay {
            relay.pass(&ready[2..]);
        }
        // Also at the end, of which it may have told just before. The host's not listening is no reason to end.
        if let Some(proxy) = &mut proxy {
            let _ = proxy.pass();
        }
        if ready[0] {
            if let Some(relay) = relay {
                relay.finish();
            }
            return reap(pidfd);
        }
    }
}

fn pass_on(pidfd: BorrowedFd<'_>, signals: &Signals, relay: Option<&Relay>) -> Result<()> {
    let Some(number) = signals::next(signals.0.as_fd()).doing(|| "read a signal".into())? else { return Ok(()) };
    match number {
        libc::SIGCHLD | libc::SIGPIPE | libc::SIGURG => {}
        libc::SIGWINCH if relay.is_some() => {
            if let Some(relay) = relay {
                relay.resize();
            }
        }
        // It may have ended in the meantime.
        _ => signals::send(pidfd, number)
            .or_else(|e| if e.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(e) })
            .doing(|| format!("pass signal {number} on"))?,
    }
    Ok(())
}

/// Reaps a child that has ended.
pub(super) fn reap(pidfd: BorrowedFd<'_>) -> Result<u8> {
    let wait = || rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED);
    let status = rustix::io::retry_on_intr(wait).doing(|| "wait for the container".into())?;
    let status = status.ok_or_else(|| Failure::new("the container's end wasn't reported"))?;
    let signal = status.terminating_signal().map(|s| 128 + s);
    Ok(status.exit_status().or(signal).unwrap_or(255) as u8)
}
