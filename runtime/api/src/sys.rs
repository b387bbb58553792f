//! The one system call that has no safe wrapper.
#![allow(unsafe_code)]

use std::ffi::c_int;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `SIOCOUTQ` (linux/sockios.h).
const OUTPUT_QUEUE: Opcode = 0x5411;

/// Whether the other end of a unix socket has read all that was written to it (net/unix/af_unix.c, `unix_ioctl`).
pub fn is_read(socket: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: for a socket, this operation stores one int.
    let waiting = unsafe { ioctl(socket, Getter::<OUTPUT_QUEUE, c_int>::new()) }?;
    Ok(waiting == 0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::is_read;

    #[test]
    fn what_nobody_has_read_yet_is_seen() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        assert!(is_read(ours.as_fd()).unwrap());
        ours.write_all(b"HTTP/1.1 101\r\n").unwrap();
        assert!(!is_read(ours.as_fd()).unwrap());
        theirs.read_exact(&mut [0; 14]).unwrap();
        assert!(is_read(ours.as_fd()).unwrap());
    }
}
