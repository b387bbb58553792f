//! Pseudo terminals, made inside the container's own devpts. The slave is reached through its master
//! (`TIOCGPTPEER`), so no path of the container's decides what becomes the process's terminal or is bound on
//! `/dev/console` (the class of CVE-2025-52565).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::init::Failure;
use crate::inroot::Links;
use crate::plan::ProcessPlan;
use crate::{inroot, mounts};

/// Where a devpts must be mounted, below the root.
const PTMX: &str = "dev/pts/ptmx";

/// The terminal of a container's first process, also bound on `/dev/console`; returns the master.
pub(crate) fn first(root: BorrowedFd<'_>, process: &ProcessPlan) -> Result<OwnedFd, Failure> {
    let (master, slave) = open(root, process)?;
    bind_console(root, slave.as_fd()).map_err(Failure::at("bind the terminal on /dev/console"))?;
    take(slave)?;
    Ok(master)
}

/// The terminal of a process that has joined a container; returns the master.
pub(crate) fn further(process: &ProcessPlan) -> Result<OwnedFd, Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, "/", flags, Mode::empty()).map_err(Failure::at("open /"))?;
    let (master, slave) = open(root.as_fd(), process)?;
    take(slave)?;
    Ok(master)
}

fn open(root: BorrowedFd<'_>, process: &ProcessPlan) -> Result<(OwnedFd, OwnedFd), Failure> {
    let step = || format!("open /{PTMX}; a terminal needs a devpts mount at /dev/pts");
    let master = inroot::open(root, Path::new(PTMX), OFlags::RDWR | OFlags::NOCTTY).map_err(Failure::at(step()))?;
    if rustix::fs::fstatfs(&master).map_err(Failure::at(step()))?.f_type != libc::DEVPTS_SUPER_MAGIC {
        return Err(Failure::new(step(), libc::ENOTTY));
    }
    let pair = || -> io::Result<OwnedFd> {
        rustix::pty::unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
        if let Some((ws_row, ws_col)) = process.console_size {
            rustix::termios::tcsetwinsize(&master, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?;
        }
        let group = None::<Gid>;
        rustix::fs::fchown(&slave, Some(Uid::from_raw(process.uid)), group)?;
        Ok(slave)
    };
    let slave = pair().map_err(Failure::at("make a terminal"))?;
    Ok((master, slave))
}

/// Makes it the controlling terminal of this session and all three standard streams.
fn take(slave: OwnedFd) -> Result<(), Failure> {
    let take = || -> io::Result<()> {
        rustix::process::ioctl_tiocsctty(&slave)?;
        rustix::stdio::dup2_stdin(&slave)?;
        rustix::stdio::dup2_stdout(&slave)?;
        Ok(rustix::stdio::dup2_stderr(&slave)?)
    };
    take().map_err(Failure::at("make the terminal the process's own"))
}

fn bind_console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> io::Result<()> {
    // A link there would say what is covered, and so might a racing container (CVE-2025-52565).
    let dev = inroot::make_folder(root, Path::new("dev"))?;
    let target = inroot::make_mount_point(dev.as_fd(), Path::new("console"), true, Links::Refused)?;
    if inroot::is_on_proc(&target)? {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let copy = mounts::clone_mount(slave, "", false)?;
    mounts::attach(copy.as_fd(), target.as_fd(), "")
}
