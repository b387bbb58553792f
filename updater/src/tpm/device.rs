//! The kernel's device of a TPM 2.0, through its resource manager (`Documentation/security/tpm`).
//!
//! Opened without blocking, a written command runs in the kernel by itself, and `poll` says when the answer is there
//! (`drivers/char/tpm/tpm-dev-common.c`). Closing a device whose command still runs waits for it, so one that takes too
//! long is left open.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::Transport;
use super::wire::MAX_ANSWER_BYTES;

/// The device.
pub const PATH: &str = "/dev/tpmrm0";
/// Longest wait for an answer. What is asked of it takes milliseconds, with old ones up to a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// An open device. After a command without an answer in time it takes no more.
pub struct Device {
    file: Option<File>,
}

impl Device {
    /// Opens it; `None`: this machine has none.
    pub fn open(path: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlags::NONBLOCK.bits() as i32);
        match options.open(path) {
            Ok(file) => Ok(Some(Self { file: Some(file) })),
            // A driver without a device behind it leaves a node that can't be opened.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// This machine's TPM; `None`: it has none.
pub fn of_this_machine() -> io::Result<Option<Box<dyn Transport>>> {
    let device = Device::open(Path::new(PATH))?;
    Ok(device.map(|device| Box::new(device) as Box<dyn Transport>))
}

impl Transport for Device {
    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", PATIENCE.as_secs()));
        let mut file = self.file.take().ok_or_else(late)?;
        if let Err(error) = file.write_all(command) {
            self.file = Some(file);
            return Err(error);
        }
        let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&file, PollFlags::IN)], Some(&limit));
        if !matches!(ready, Ok(1..)) {
            std::mem::forget(file);
            return Err(late());
        }
        let mut answer = vec![0; MAX_ANSWER_BYTES];
        let outcome = file.read(&mut answer);
        self.file = Some(file);
        answer.truncate(outcome?);
        Ok(answer)
    }
}
