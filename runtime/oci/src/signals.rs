//! Signals by name, sent through pidfds, and received through a descriptor.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sys;

/// Names and numbers on x86-64 (signal(7)).
#[rustfmt::skip]
const NAMES: [(&str, i32); 35] = [
    ("HUP", 1), ("INT", 2), ("QUIT", 3), ("ILL", 4), ("TRAP", 5), ("ABRT", 6), ("IOT", 6), ("BUS", 7), ("FPE", 8),
    ("KILL", 9), ("USR1", 10), ("SEGV", 11), ("USR2", 12), ("PIPE", 13), ("ALRM", 14), ("TERM", 15), ("STKFLT", 16),
    ("CHLD", 17), ("CLD", 17), ("CONT", 18), ("STOP", 19), ("TSTP", 20), ("TTIN", 21), ("TTOU", 22), ("URG", 23),
    ("XCPU", 24), ("XFSZ", 25), ("VTALRM", 26), ("PROF", 27), ("WINCH", 28), ("IO", 29), ("POLL", 29), ("PWR", 30),
    ("SYS", 31), ("UNUSED", 31),
];

/// The number of a signal: a name with or without `SIG`, `RTMIN+n`, `RTMAX-n`, or the number itself; 0 asks whether
/// one could be sent.
pub(crate) fn number(word: &str) -> Option<i32> {
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |rest: &str, base: i32, sign: i32| match rest {
        "" => Some(base),
        rest => rest.get(1..)?.parse::<i32>().ok().map(|n| base + sign * n).filter(|n| (34..=64).contains(n)),
    };
    if let Ok(number) = word.parse::<i32>() {
        return (0..=64).contains(&number).then_some(number);
    }
    match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(rest), _) => real_time(rest, 34, 1),
        (_, Some(rest)) => real_time(rest, 64, -1),
        _ => NAMES.iter().find(|(n, _)| *n == name).map(|(_, number)| *number),
    }
}

/// Sends one.
pub(crate) fn send(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    sys::pidfd_send_signal(pidfd, number)
}

/// Blocks all, to be read by [`next`].
pub(crate) fn block_all() -> io::Result<OwnedFd> {
    sys::block_signals()
}

/// The next one that came; `None`: there is none.
pub(crate) fn next(fd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    // struct signalfd_siginfo; its first field is the number.
    let mut info = [0u8; 128];
    match rustix::io::read(fd, &mut info) {
        Ok(128) => Ok(Some(i32::from_le_bytes([info[0], info[1], info[2], info[3]]))),
        Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn signals_have_names_and_numbers() {
        for (word, expected) in [
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("9", Some(9)),
            ("0", Some(0)),
            ("65", None),
            ("NOPE", None),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("RTMAX-40", None),
            ("-1", None),
        ] {
            assert_eq!(number(word), expected, "{word}");
        }
    }
}
