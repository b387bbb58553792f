//! The caller's end of `--console-socket`.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::bundle::Answers;
use crate::process::{DEADLINE, readable};

/// A socket on which a runtime hands a terminal over.
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    /// Where it is.
    pub path: PathBuf,
}

impl ConsoleSocket {
    /// Listens in this folder.
    pub(crate) fn new(path: PathBuf) -> Result<Self> {
        let listener = UnixListener::bind(&path).with_context(|| format!("listen on {}", path.display()))?;
        Ok(Self { listener, path })
    }

    /// Takes the terminal's master.
    pub(crate) fn terminal(&self) -> Result<Terminal> {
        ensure!(readable(&self.listener, DEADLINE)?, "nothing connected to the console socket");
        let (stream, _) = self.listener.accept()?;
        ensure!(readable(&stream, DEADLINE)?, "nothing was sent on the console socket");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0u8; 4096];
        recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut found: Vec<OwnedFd> = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                found.extend(descriptors);
            }
        }
        ensure!(found.len() == 1, "one descriptor must be sent on the console socket; there were {}", found.len());
        Ok(Terminal { file: found.remove(0).into(), seen: String::new() })
    }
}

/// A terminal's master.
pub(crate) struct Terminal {
    file: std::fs::File,
    seen: String,
}

impl Terminal {
    /// Waits for so many answers of a probe. Lines that aren't answers are passed over.
    pub(crate) fn answers(&mut self, count: usize) -> Result<Answers> {
        loop {
            let whole = self.seen.rfind('\n').map_or("", |end| &self.seen[..end]);
            let lines: Vec<&str> = whole.lines().map(str::trim).filter(|line| line.starts_with('{')).collect();
            if lines.len() >= count {
                return Answers::parse(&lines.join("\n"));
            }
            ensure!(readable(&self.file, DEADLINE)?, "the terminal shows only {:?}", self.seen);
            let mut bytes = [0u8; 4096];
            match self.file.read(&mut bytes) {
                // EIO: nobody holds the other side any more.
                Ok(0) | Err(_) => bail!("the terminal was closed after {:?}", self.seen),
                Ok(length) => self.seen.push_str(&String::from_utf8_lossy(&bytes[..length])),
            }
        }
    }

    /// Types.
    pub(crate) fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.file.write_all(text.as_bytes())?)
    }

    /// The descriptor.
    pub(crate) fn file(&self) -> &std::fs::File {
        &self.file
    }
}
