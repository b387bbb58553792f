//! Messages between the creating process and the container's first one: a length (u32, little endian), then postcard.
//! Descriptors travel beside the length. Both ends are the same program; still, everything has a cap.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::steps::Mark;
use crate::sys::{RAW_FAILURE, raw_step};

/// Longest message. A plan holds arguments and environment (2 MiB at most, execve(2)) and a filter.
const MAX_BYTES: usize = 4 << 20;
/// Most descriptors beside a message; the kernel's limit is 253 (`SCM_MAX_FD`).
pub(crate) const MAX_FDS: usize = 200;

/// What the child tells.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Mounts are made; it waits for one byte while the parent runs hooks.
    Mounted,
    /// Everything is set up; it waits for one byte. With the child's marks of time, if they are asked for.
    Ready { marks: Vec<Mark> },
    /// A step failed.
    Failed { step: String, errno: i32, said: Option<String> },
    /// The program couldn't be executed.
    Exec { hint: String, errno: i32 },
}

/// Sends a message with descriptors.
pub(crate) fn send<T: Serialize>(socket: BorrowedFd<'_>, message: &T, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let body = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if body.len() > MAX_BYTES || fds.len() > MAX_FDS {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let head = (body.len() as u32).to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::E2BIG));
    }
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(&head)], &mut control, SendFlags::NOSIGNAL)?;
    if sent != head.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    let mut rest = &body[..];
    while !rest.is_empty() {
        match rustix::net::send(socket, rest, SendFlags::NOSIGNAL) {
            Ok(n) => rest = &rest[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Sends plain text with one descriptor, in one message.
pub(crate) fn send_text(socket: BorrowedFd<'_>, text: &str, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let sent = rustix::net::sendmsg(socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    if sent == text.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// Receives a message with its descriptors. `Ok(None)`: the other side closed its end.
pub(crate) fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut head = [0u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let got = loop {
        match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut head)], &mut control, flags) {
            Ok(got) => break got.bytes,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    match got {
        0 => return Ok(None),
        4 => {}
        _ => return Err(io::ErrorKind::UnexpectedEof.into()),
    }
    let len = u32::from_le_bytes(head);
    if len == RAW_FAILURE {
        return Err(raw_failure(socket)?);
    }
    if len as usize > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let body = read_exact(socket, len as usize)?;
    Ok(Some((postcard::from_bytes(&body).map_err(io::Error::other)?, fds)))
}

/// The error of a child that had nothing but system calls to tell it with.
fn raw_failure(socket: BorrowedFd<'_>) -> io::Result<io::Error> {
    let body = read_exact(socket, 8)?;
    let word = |at: usize| u32::from_le_bytes([body[at], body[at + 1], body[at + 2], body[at + 3]]);
    let errno = io::Error::from_raw_os_error(word(4) as i32);
    let step = raw_step(word(0));
    Ok(io::Error::new(errno.kind(), format!("{step}: {errno}")))
}

fn read_exact(socket: BorrowedFd<'_>, len: usize) -> io::Result<Vec<u8>> {
    let mut body = vec![0; len];
    let mut at = 0;
    while at < len {
        match rustix::io::read(socket.as_fd(), &mut body[at..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => at += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(body)
}
